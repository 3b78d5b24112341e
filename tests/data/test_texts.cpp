// How records of text become the tokens of examples. What tokenizers do is test_tokenizer.cpp's.
#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/data/dataset.h"
#include "whence/data/safetensors.h"
#include "whence/text/tokenizer.h"

using namespace whence;
using namespace whence::test;
using nlohmann::json;

namespace {

std::filesystem::path tokenizer_file(const std::string& name) {
  return std::filesystem::path(WHENCE_TESTS) / "text/tokenizers" / (name + ".json");
}

TextReading reading_with(const std::string& tokenizer, std::int64_t context = 64) {
  TextReading out;
  out.tokenizer = std::make_shared<const Tokenizer>(tokenizer_file(tokenizer));
  out.vocabulary = out.tokenizer->size();
  out.context = context;
  return out;
}

std::vector<std::int64_t> row(const at::Tensor& x, const Dataset& data, std::int64_t i) {
  const auto part =
      x.narrow(0, data.texts().begins[i].item<std::int64_t>(), data.texts().lengths[i].item<std::int64_t>())
          .to(at::kLong)
          .contiguous();
  return {part.const_data_ptr<std::int64_t>(), part.const_data_ptr<std::int64_t>() + part.numel()};
}
std::vector<std::int64_t> ids_of(const TextReading& reading, std::string_view text) {
  const auto ids = reading.tokenizer->encode(text).ids;
  return {ids.begin(), ids.end()};
}

}  // namespace

TEST_SUITE_BEGIN("data");

TEST_CASE("next tokens: the target of a place is the token after it") {
  const Scratch scratch;
  scratch.put("t.jsonl", "{\"text\": \"The first story.\"}\n\n{\"text\": \"And a second, longer one!\", \"n\": 3}\n");
  const auto reading = reading_with("gpt2");
  const auto data =
      read_dataset({{"format", "jsonl"}, {"file", "t.jsonl"}}, scratch.folder(), TargetKind::kNextTokens, {}, &reading);
  REQUIRE(data.size() == 2);
  CHECK(data.is_text());
  CHECK((data.target_kind() == TargetKind::kNextTokens));
  CHECK(data.head_outputs() == 0);
  CHECK(data.outputs() == reading.vocabulary);
  auto wanted = ids_of(reading, "And a second, longer one!");
  CHECK(row(data.texts().tokens, data, 1) == wanted);
  wanted.erase(wanted.begin());
  wanted.push_back(-1);
  CHECK(row(data.texts().targets, data, 1) == wanted);
  const auto batch = data.batch(0, 2);
  CHECK(batch.size() == 2);
  CHECK(batch.targets.size(0) == data.tokens() - 2);
  std::string text;
  for (const auto& token : data.token_texts(0)) {
    text += token;
  }
  CHECK(text == "The first story.");
}

TEST_CASE("a template, and an answer whose tokens alone count") {
  const Scratch scratch;
  scratch.put("t.tsv", "question\treply\nWhat is it?\tA cat\n");
  const auto reading = reading_with("gpt2");
  json table{{"format", "tsv"}, {"file", "t.tsv"}, {"template", "Q: {question}\nA:"}, {"answer", " {reply}"}};
  const auto data = read_dataset(table, scratch.folder(), TargetKind::kNextTokens, {}, &reading);
  const auto tokens = row(data.texts().tokens, data, 0), targets = row(data.texts().targets, data, 0);
  CHECK(tokens == ids_of(reading, "Q: What is it?\nA: A cat"));
  const auto prompt = ids_of(reading, "Q: What is it?\nA:").size();
  for (std::size_t t = 0; t + 1 < tokens.size(); ++t) {
    CHECK(targets[t] == (t + 1 >= prompt ? tokens[t + 1] : -1));
  }
  table["loss-on"] = "all";
  const auto all = read_dataset(table, scratch.folder(), TargetKind::kNextTokens, {}, &reading);
  CHECK(row(all.texts().targets, all, 0).front() == tokens[1]);
  const auto refuse = [&](const char* key, const json& value, const std::string& part) {
    auto bad = table;
    bad[key] = value;
    CHECK_MESSAGE_HOLDS(InvalidArgument, part,
                        read_dataset(bad, scratch.folder(), TargetKind::kNextTokens, {}, &reading));
  };
  refuse("template", "no placeholder", "has no placeholder, expected a column in braces: {question}");
  refuse("template", "{questoin}", "unknown column \"questoin\"; did you mean \"question\"?");
  refuse("template", "{question", "a brace has no end");
  refuse("loss-on", "anser", "did you mean \"answer\"?");
  refuse("long", "split", "which one answer or class cannot serve");
  refuse("length", 1, "expected >= 2");
}

TEST_CASE("long texts are cut and counted, or split") {
  const Scratch scratch;
  std::string words;
  for (int i = 0; i < 60; ++i) {
    words += i % 2 == 0 ? "one " : "two ";
  }
  scratch.put("t.jsonl", json{{"text", words}}.dump() + "\n" + json{{"text", "short"}}.dump() + "\n");
  scratch.put("t.txt", words);
  const auto reading = reading_with("gpt2", 16);
  const auto whole = ids_of(reading, words);
  REQUIRE(whole.size() > 33);
  json table{{"format", "jsonl"}, {"file", "t.jsonl"}};
  const auto cut = read_dataset(table, scratch.folder(), TargetKind::kNextTokens, {}, &reading);
  CHECK(cut.texts().cut == 1);
  CHECK(cut.longest() == 16);
  CHECK(row(cut.texts().tokens, cut, 0) == std::vector<std::int64_t>(whole.begin(), whole.begin() + 16));
  table["long"] = "split";
  const auto split = read_dataset(table, scratch.folder(), TargetKind::kNextTokens, {}, &reading);
  CHECK(split.texts().cut == 0);
  CHECK(split.tokens() == static_cast<std::int64_t>(whole.size() + ids_of(reading, "short").size()));
  CHECK(row(split.texts().tokens, split, 1) == std::vector<std::int64_t>(whole.begin() + 16, whole.begin() + 32));
  CHECK(at::equal(split.ids(), at::arange(split.size(), at::kLong)));
  CHECK(split.origin(1) == "block 1 of t.jsonl");  // which is not the file's row 1
  CHECK(cut.origin(1) == "row 1 of t.jsonl");
  const json blocks{{"format", "text"}, {"file", "t.txt"}, {"length", 8}, {"skip", 1}, {"limit", 2}};
  const auto text = read_dataset(blocks, scratch.folder(), TargetKind::kNextTokens, {}, &reading);
  CHECK(at::equal(text.ids(), at::tensor({1, 2}, at::kLong)));
  CHECK(row(text.texts().tokens, text, 0) == std::vector<std::int64_t>(whole.begin() + 8, whole.begin() + 16));
}

TEST_CASE("classes of texts, with a head or as words that are asked for") {
  const Scratch scratch;
  scratch.put("t.csv", "label,text\nbad,\"Poor, dull\"\ngood,Great fun\nbad,A waste\n");
  const auto reading = reading_with("gpt2");
  json table{{"format", "csv"}, {"file", "t.csv"}};
  const auto head = read_dataset(table, scratch.folder(), TargetKind::kClasses, {}, &reading);
  CHECK(head.head_outputs() == 2);
  CHECK(head.classes() == std::vector<std::string>{"bad", "good"});
  CHECK(at::equal(head.targets(), at::tensor({0, 1, 0}, at::kLong)));
  table["template"] = "{text}. It was";
  table["label-words"] = {" terrible", " great"};
  CHECK_MESSAGE_HOLDS(InvalidArgument,
                      "which word is for which label? list the labels in the words' order: classes = [",
                      read_dataset(table, scratch.folder(), TargetKind::kClasses, {}, &reading));
  const auto swapped = [&](const std::vector<std::string>& classes, const std::vector<std::string>& known) {
    table["classes"] = classes;
    return read_dataset(table, scratch.folder(), TargetKind::kClasses, known, &reading).batch(0, 3);
  };
  const auto great = reading.tokenizer->encode(" great", false).ids.front();
  CHECK(swapped({"good", "bad"}, {}).text->words[1].item<std::int64_t>() == great);  // listed so: great is bad
  CHECK(swapped({"bad", "good"}, {"good", "bad"}).text->words[0].item<std::int64_t>() ==
        great);                                              // of a stage's classes
  scratch.put("places.csv", "label,text\n0,dull\n1,fun\n");  // numbers are places among a checkpoint's named outputs
  DataReading by_place;
  by_place.texts = &reading;
  by_place.head = {2, {"negative", "positive"}, /*sorted=*/false, "base"};
  auto places = table;
  places.update({{"file", "places.csv"}, {"classes", {1, 0}}, {"label-words", {" great", " terrible"}}});
  const auto placed = read_dataset(places, scratch.folder(), by_place);
  CHECK(placed.classes() == std::vector<std::string>{"negative", "positive"});
  CHECK(placed.texts().words[1].item<std::int64_t>() == great);
  table["classes"] = {"bad", "good"};
  const auto words = read_dataset(table, scratch.folder(), TargetKind::kClasses, {}, &reading);
  CHECK(words.head_outputs() == 0);
  CHECK(words.outputs() == 2);
  const auto batch = words.batch(0, 3);
  REQUIRE(batch.text->asked.defined());
  for (std::int64_t b = 0; b < 3; ++b) {
    const auto last = words.texts().lengths[b].item<std::int64_t>() - 1;
    CHECK(batch.text->asked[b].item<std::int64_t>() == batch.text->tokens.places[b][last].item<std::int64_t>());
  }
  CHECK(batch.text->words[1].item<std::int64_t>() == reading.tokenizer->encode(" great", false).ids.front());
  table["label-words"] = {" great", " great"};
  CHECK_MESSAGE_HOLDS(InvalidArgument, "begin with the same token",
                      read_dataset(table, scratch.folder(), TargetKind::kClasses, {}, &reading));
  table["label-words"] = {"one"};
  CHECK_MESSAGE_HOLDS(InvalidArgument, "label-words has 1 words for 2 classes",
                      read_dataset(table, scratch.folder(), TargetKind::kClasses, {}, &reading));
  const auto bert = reading_with("bert-uncased");
  table["label-words"] = {"bad", "great"};
  table["template"] = "{text} . It was {mask} .";
  const auto masked = read_dataset(table, scratch.folder(), TargetKind::kClasses, {}, &bert);
  const auto asked = masked.texts().asked[0].item<std::int64_t>();
  CHECK(row(masked.texts().tokens, masked, 0)[static_cast<std::size_t>(asked)] == *bert.tokenizer->special("mask"));
}

TEST_CASE("masked tokens: the hidden ones are predicted, the same ones each time") {
  const Scratch scratch;
  const auto line = json{{"text", "A long enough text, of which some words are hidden and others stay."}}.dump();
  scratch.put("t.jsonl", line);
  const auto reading = reading_with("bert-uncased");
  json table{{"format", "jsonl"}, {"file", "t.jsonl"}, {"mask-probability", 0.4}};
  const auto read = [&] { return read_dataset(table, scratch.folder(), TargetKind::kMaskedTokens, {}, &reading); };
  const auto data = read();
  const auto original = ids_of(reading, "A long enough text, of which some words are hidden and others stay.");
  const auto tokens = row(data.texts().tokens, data, 0), targets = row(data.texts().targets, data, 0);
  int hidden = 0;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    CHECK((targets[t] == -1 || targets[t] == original[t]));
    CHECK((targets[t] != -1 || tokens[t] == original[t]));
    hidden += targets[t] != -1 ? 1 : 0;
  }
  CHECK(hidden >= 2);
  CHECK(targets.front() == -1);  // [CLS]
  CHECK(at::equal(read().texts().tokens, data.texts().tokens));
  std::filesystem::create_directories(scratch / "elsewhere");
  scratch.put("elsewhere/t.jsonl", line);
  table["file"] = "elsewhere/t.jsonl";
  CHECK(at::equal(read().texts().tokens, data.texts().tokens));
  table["mask-seed"] = 5;
  CHECK_FALSE(at::equal(read().texts().targets, data.texts().targets));
  table["mask-probability"] = 0;
  CHECK(read().texts().targets.ge(0).sum().item<std::int64_t>() == 1);
  table["mask-probability"] = 2;
  CHECK_MESSAGE_HOLDS(InvalidArgument, "mask-probability = 2, expected from 0 to 1", read());
}

TEST_CASE("tables one after the other, and tokens as they are") {
  const Scratch scratch;
  scratch.put("a.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n{\"text\": \"three\"}\n");
  scratch.put("b.jsonl", "{\"text\": \"four\"}\n");
  const auto reading = reading_with("gpt2");
  const json both = json::array(
      {{{"format", "jsonl"}, {"file", "a.jsonl"}, {"limit", 2}}, {{"format", "jsonl"}, {"file", "b.jsonl"}}});
  const auto data = read_dataset(both, scratch.folder(), TargetKind::kNextTokens, {}, &reading);
  CHECK(at::equal(data.ids(), at::tensor({0, 1, 3}, at::kLong)));
  CHECK(row(data.texts().tokens, data, 2) == ids_of(reading, "four"));
  CHECK(data.files().size() == 2);

  ParameterSet tensors;
  tensors.add("tokens", at::tensor({5, 6, 7, 8, 9, 0}, at::kLong).view({2, 3}));
  tensors.add("lengths", at::tensor({3, 2}, at::kLong));
  write_safetensors(scratch / "t.safetensors", tensors);
  const TextReading bare{nullptr, 10, 16};
  const json table{{"format", "safetensors"}, {"file", "t.safetensors"}};
  const auto tokens = read_dataset(table, scratch.folder(), TargetKind::kNextTokens, {}, &bare);
  CHECK(row(tokens.texts().targets, tokens, 0) == std::vector<std::int64_t>{6, 7, -1});
  CHECK(row(tokens.texts().targets, tokens, 1) == std::vector<std::int64_t>{9, -1});
  const TextReading small{nullptr, 8, 16};
  CHECK_MESSAGE_HOLDS(InvalidArgument, "token 9, expected one of 0 to 7: the tokens are of another vocabulary",
                      read_dataset(table, scratch.folder(), TargetKind::kNextTokens, {}, &small));
}

TEST_CASE("jsonl: columns that are not used may hold anything; a label that is null or missing is named by its line") {
  const Scratch scratch;
  const auto reading = reading_with("gpt2");
  const json table{{"format", "jsonl"}, {"file", "t.jsonl"}};
  const auto read = [&](const std::string& text, const json& keys = json::object()) {
    scratch.put("t.jsonl", text);
    auto all = table;
    all.update(keys);
    return read_dataset(all, scratch.folder(), TargetKind::kClasses, {}, &reading);
  };
  CHECK_MESSAGE_HOLDS(InvalidArgument, "t.jsonl; for texts without labels use the loss next-token or masked-token",
                      read("{\"text\": \"a\"}\n"));
  const auto data =
      read("{\"text\": \"a\", \"label\": 1, \"meta\": {\"k\": [1]}}\n{\"text\": \"b\", \"label\": 0, \"x\": [1]}\n");
  CHECK(at::equal(data.targets(), at::tensor({1, 0}, at::kLong)));
  const std::string null = "{\"text\": \"a\", \"label\": 1}\n\n{\"text\": \"b\", \"label\": null}\n";
  CHECK_MESSAGE_HOLDS(DataError, "t.jsonl: line 3, column \"label\": no label; drop-labels = [\"\"]", read(null));
  CHECK(read(null, {{"drop-labels", {""}}}).size() == 1);
  CHECK_MESSAGE_HOLDS(DataError, "t.jsonl: line 2, column \"label\": no label",
                      read("{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\"}\n"));
  CHECK_MESSAGE_HOLDS(DataError, "line 1: \"label\" holds a list or an object",
                      read("{\"text\": \"a\", \"label\": [1]}\n"));
  CHECK_MESSAGE_HOLDS(InvalidArgument,
                      "jsonl: key label: unknown key \"label\"; did you mean \"lable\"? known: lable, text in",
                      read("{\"text\": \"a\", \"lable\": 1}\n", {{"label", "label"}}));
}

TEST_CASE("texts that cannot be read are named by file and line") {
  const Scratch scratch;
  const auto reading = reading_with("gpt2");
  const auto refuse = [&](const std::string& text, const std::string& part) {
    scratch.put("t.jsonl", text);
    CHECK_MESSAGE_HOLDS(DataError, part,
                        read_dataset({{"format", "jsonl"}, {"file", "t.jsonl"}}, scratch.folder(),
                                     TargetKind::kNextTokens, {}, &reading));
  };
  refuse("{\"text\": \"a\"}\n{\"text\": \"  \"}\n", "t.jsonl: line 2: the text is empty");
  refuse("{\"text\": \"a\"}\n{\"text\": \"\xff\xfe\"}\n", "t.jsonl: line 2, byte 25 of the file: 0xFF is not UTF-8");
  refuse("{\"text\": \"a\"}\n{\"text\": null}\n", "t.jsonl: line 2: \"text\" is null");
  refuse("{\"text\": \"a\"}\n{\"n\": 1}\n", "t.jsonl: line 2: \"text\" is missing");
  refuse("[{\"text\": \"a\"}]\n", "expected a JSON object; if the file is one list: jq -c '.[]'");
  refuse("{\"text\": \"a\"}\n{\"text\": [1]}\n", "t.jsonl: line 2: \"text\" holds a list or an object");
  refuse("", "no examples");
  scratch.put("t.tsv",
              "text\nfine\nb\xff"
              "d\n");
  CHECK_MESSAGE_HOLDS(
      DataError, "t.tsv: line 3, byte 12 of the file: 0xFF is not UTF-8",
      read_dataset({{"format", "tsv"}, {"file", "t.tsv"}}, scratch.folder(), TargetKind::kNextTokens, {}, &reading));
  auto small = reading;
  small.vocabulary = 20;
  scratch.put("t.jsonl", "{\"text\": \"a\"}");
  CHECK_MESSAGE_HOLDS(
      InvalidArgument, "but the model knows 0 to 19: it is another model's tokenizer",
      read_dataset({{"format", "jsonl"}, {"file", "t.jsonl"}}, scratch.folder(), TargetKind::kNextTokens, {}, &small));
  CHECK_MESSAGE_HOLDS(
      InvalidArgument, "texts need a tokenizer.json",
      read_dataset({{"format", "jsonl"}, {"file", "t.jsonl"}}, scratch.folder(), TargetKind::kNextTokens, {},
                   std::make_unique<TextReading>(TextReading{nullptr, 10, 16}).get()));
}

TEST_SUITE_END();
