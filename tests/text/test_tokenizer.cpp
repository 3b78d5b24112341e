#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>

#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/text/tokenizer.h"

using namespace whence;
using nlohmann::json;
using test::Scratch;
namespace fs = std::filesystem;

namespace {

/// What make_tokenizers.py wrote.
const fs::path kFolder = fs::path(WHENCE_TESTS) / "text/tokenizers";

Tokenizer made(const std::string& name) { return Tokenizer(kFolder / (name + ".json")); }

std::vector<json> expected_of(const std::string& name) {
  std::vector<json> lines;
  const auto text = read_text(kFolder / (name + ".expected.gz"));
  for (std::size_t at = 0; at < text.size();) {
    const auto end = text.find('\n', at);
    lines.push_back(json::parse(text.substr(at, end - at)));
    at = end + 1;
  }
  return lines;
}

/// As the expected lines have it: id, begin less the end before, and length of each token.
std::vector<std::int64_t> numbers_of(const Encoding& encoding) {
  std::vector<std::int64_t> numbers;
  std::int64_t before = 0;
  for (std::size_t i = 0; i < encoding.ids.size(); ++i) {
    const auto [begin, end] = encoding.offsets[i];
    numbers.insert(numbers.end(), {encoding.ids[i], begin - before, end - begin});
    before = end;
  }
  return numbers;
}

/// A tokenizer.json of a small WordLevel model, changed.
template <class Change>
fs::path put_changed(const Scratch& scratch, Change&& change) {
  auto parts = json::parse(
      R"({"model": {"type": "WordLevel", "vocab": {"<unk>": 0, "a": 1, "b": 2}, "unk_token": "<unk>"},
          "pre_tokenizer": {"type": "Whitespace"}, "truncation": {"max_length": 1}, "padding": {"pad_id": 0}})");
  change(parts);
  return scratch.put("tokenizer.json", parts.dump());
}

/// Tokens of a text by the definition: of all pairs that merge the earliest in the list, its leftmost, again and again.
std::vector<std::string> merged(std::vector<std::string> pieces,
                                const std::vector<std::pair<std::string, std::string>>& merges) {
  while (true) {
    std::size_t best = merges.size(), place = 0;
    for (std::size_t i = 0; i + 1 < pieces.size(); ++i) {
      const auto rank = static_cast<std::size_t>(
          std::find(merges.begin(), merges.end(), std::pair(pieces[i], pieces[i + 1])) - merges.begin());
      if (rank < best) {
        best = rank;
        place = i;
      }
    }
    if (best == merges.size()) {
      return pieces;
    }
    pieces[place] += pieces[place + 1];
    pieces.erase(pieces.begin() + static_cast<std::ptrdiff_t>(place) + 1);
  }
}

}  // namespace

TEST_SUITE_BEGIN("text");

TEST_CASE("tokenizers of every kind: ids, offsets and decoded texts are those of the tokenizers package") {
  const auto texts = json::parse(read_text(kFolder / "texts.json")).get<std::vector<std::string>>();
  REQUIRE(texts.size() > 400);
  for (const char* name : {"albert", "bert-cased", "bert-uncased", "clip", "gpt2", "llama2", "llama3", "mistral",
                           "qwen2", "roberta", "smollm2", "t5", "word-level", "xlm-r"}) {
    CAPTURE(name);
    const auto tokenizer = made(name);
    const auto expected = expected_of(name);
    REQUIRE(expected.size() == texts.size());
    for (int repeat = 0; repeat < 2; ++repeat) {  // the second time words come from the cache
      for (std::size_t i = 0; i < texts.size(); ++i) {
        CAPTURE(texts[i]);
        const auto encoding = tokenizer.encode(texts[i]);
        CHECK(json(numbers_of(encoding)).dump() == expected[i][0].dump());
        const auto decoded = tokenizer.decode(encoding.ids);
        CHECK(decoded == (expected[i][1].is_null() ? texts[i] : expected[i][1].get<std::string>()));
        CHECK(tokenizer.decode(encoding.ids, false) ==
              (expected[i][2].is_null() ? decoded : expected[i][2].get<std::string>()));
      }
    }
  }
}

TEST_CASE("a tokenizer of a published model") {
  const fs::path folder = fs::path(WHENCE_SHARED) / "models/stories260k";
  if (!fs::exists(folder)) {
    MESSAGE("skipped: no ", folder.string());
    return;
  }
  const Tokenizer tokenizer(folder);
  CHECK(tokenizer.size() == 512);
  const auto encoding = tokenizer.encode("Once upon a time, Zoë.");
  CHECK(encoding.ids == std::vector<std::int32_t>{1, 403, 407, 261, 378, 432, 410, 469, 414, 198, 174, 426});
  CHECK(tokenizer.decode(encoding.ids) == "Once upon a time, Zoë.");
}

TEST_CASE("pairs of texts, with and without special tokens") {
  const auto bert = made("bert-uncased");
  const auto cls = *bert.id("[CLS]"), sep = *bert.id("[SEP]"), a = *bert.id("a");
  auto encoding = bert.encode("a", "a a");
  CHECK(encoding.ids == std::vector{cls, a, sep, a, a, sep});
  CHECK(encoding.types == std::vector{0, 0, 0, 1, 1, 1});
  CHECK(encoding.special == std::vector{true, false, true, false, false, true});
  CHECK(encoding.offsets == decltype(encoding.offsets){{0, 0}, {0, 1}, {0, 0}, {0, 1}, {2, 3}, {0, 0}});
  encoding = bert.encode("a", "a a", false);
  CHECK(encoding.ids == std::vector{a, a, a});
  CHECK(encoding.types == std::vector{0, 1, 1});
  CHECK(bert.encode("a", false).ids == std::vector{a});
  CHECK(bert.encode("", false).ids.empty());

  const auto roberta = made("roberta").encode("a", "a");  // <s> a </s></s> a </s>, all of type 0
  CHECK(roberta.ids.size() == 6);
  CHECK(roberta.types == std::vector<std::int32_t>(6, 0));
  const auto gpt2 = made("gpt2").encode("a", "a");  // a post-processor that adds nothing
  CHECK(gpt2.types == std::vector{0, 1});
}

TEST_CASE("settings beside a tokenizer.json are followed as by AutoTokenizer: make_settings.py") {
  const auto rows = json::parse(read_text(fs::path(WHENCE_TESTS) / "text/tokenizer_settings.json"));
  CHECK(rows.size() > 30);
  for (const auto& row : rows) {
    const Scratch scratch;
    CAPTURE(row.dump());
    fs::copy(kFolder / (row[0].get<std::string>() + ".json"), scratch / "tokenizer.json");
    const char* const names[] = {"config.json", "tokenizer_config.json", "special_tokens_map.json",
                                 "added_tokens.json"};
    for (std::size_t i = 0; i < 4; ++i) {
      if (!row[i + 1].is_null()) {
        scratch.put(names[i], row[i + 1].dump());
      }
    }
    const Tokenizer tokenizer(scratch.folder());
    REQUIRE_FALSE(row[5].empty());
    for (const auto& text : row[5]) {
      CHECK(json(tokenizer.encode(text[0].get<std::string>()).ids).dump() == text[1].dump());
    }
  }
}

TEST_CASE("add_bos_token and add_eos_token, which versions of transformers follow or not, are followed and said") {
  const Scratch scratch;
  fs::copy(kFolder / "llama2.json", scratch / "tokenizer.json");
  const auto ids = [&](const char* settings) {
    scratch.put("tokenizer_config.json", settings);
    return Tokenizer(scratch.folder()).encode("a").ids;
  };
  const auto plain = ids("{}");
  REQUIRE(plain.size() == 2);
  CHECK(plain[0] == 1);
  CHECK(ids(R"({"add_bos_token": false})") == std::vector{plain[1]});
  CHECK(ids(R"({"add_eos_token": true, "eos_token": "</s>"})") == std::vector{plain[0], plain[1], 2});
  CHECK(ids(R"({"add_bos_token": true})") == plain);
  CHECK(Tokenizer(scratch.folder()).notes().empty());
  scratch.put("tokenizer_config.json", R"({"add_bos_token": false})");
  const auto notes = Tokenizer(scratch.folder()).notes();
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].find("add_bos_token = false and add_eos_token = false are followed, as by transformers 4") !=
        notes[0].npos);
  CHECK_MESSAGE_HOLDS(DataError, "add_eos_token = true, but no eos_token is named", ids(R"({"add_eos_token": true})"));
  CHECK_MESSAGE_HOLDS(DataError, "add_bos_token", ids(R"({"add_bos_token": "yes"})"));
  const auto two = [&](const char* settings) {
    scratch.put("tokenizer_config.json", settings);
    return Tokenizer(scratch.folder()).encode("a", "a").ids;
  };
  CHECK(two(R"({"add_bos_token": false})") == std::vector{plain[1], plain[1]});
  fs::copy(kFolder / "bert-cased.json", scratch / "tokenizer.json", fs::copy_options::overwrite_existing);
  scratch.put("config.json", R"({"model_type": "bert"})");
  scratch.put("tokenizer_config.json", "{}");
  const Tokenizer bert(scratch.folder());
  REQUIRE(!bert.notes().empty());
  CHECK(bert.notes()[0].find("no do_lower_case, so it is true as in transformers' BertTokenizer, though tokenizer.json "
                             "says false") != std::string::npos);
}

TEST_CASE("ids, tokens and roles") {
  const Scratch scratch;
  fs::copy(kFolder / "bert-cased.json", scratch / "tokenizer.json");
  const Tokenizer bare(scratch.folder());
  CHECK(bare.size() == 600);
  CHECK(bare.id("[SEP]") == 3);
  CHECK(bare.token(3) == "[SEP]");
  CHECK(bare.token(-1).empty());
  CHECK(bare.token(600).empty());
  CHECK_FALSE(bare.id("no such token"));
  CHECK(bare.decode(std::vector{-1, 600, *bare.id("a")}) == "a");
  CHECK(bare.special("unk") == bare.id("[UNK]"));  // the model's own
  CHECK(bare.special("cls") == bare.id("[CLS]"));  // by its usual name
  CHECK_MESSAGE_HOLDS(InvalidArgument, "unknown role \"start\"", bare.special("start"));

  scratch.put(
      "tokenizer_config.json",
      R"({"cls_token": "[CLS]", "pad_token": {"content": "[PAD]"}, "bos_token": null, "mask_token": "absent"})");
  scratch.put("special_tokens_map.json", R"({"sep_token": "[SEP]", "cls_token": "[MASK]"})");
  const Tokenizer tokenizer(scratch.folder());
  CHECK(tokenizer.special("cls") == tokenizer.id("[MASK]"));  // as in transformers, the older file's word is the last
  CHECK(tokenizer.special("pad") == 0);
  CHECK(tokenizer.special("sep") == 3);
  CHECK_FALSE(tokenizer.special("bos"));
  CHECK(tokenizer.special("mask") == 600);  // a token more
  scratch.put("tokenizer_config.json", R"({"cls_token": 3})");
  CHECK_MESSAGE_HOLDS(DataError, "tokenizer_config.json: key \"cls_token\": expected a text",
                      Tokenizer(scratch.folder()));
}

TEST_CASE("one tokenizer serves several threads") {
  const auto tokenizer = made("llama3");
  const auto texts = json::parse(read_text(kFolder / "texts.json")).get<std::vector<std::string>>();
  std::vector<std::vector<std::int32_t>> ids(4);
  std::vector<std::thread> threads;
  for (auto& own : ids) {
    threads.emplace_back([&] {
      for (const auto& text : texts) {
        const auto encoding = tokenizer.encode(text);
        own.insert(own.end(), encoding.ids.begin(), encoding.ids.end());
      }
    });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  CHECK(ids[1] == ids[0]);
  CHECK(ids[2] == ids[0]);
  CHECK(ids[3] == ids[0]);
}

TEST_CASE("long words, and more words than are remembered") {
  const auto tokenizer = made("gpt2");
  std::string text;
  for (int i = 0; i < 70000; ++i) {
    text += fmt::format(" {}", i);
  }
  text += ' ';
  text.append(100000, 'a');
  CHECK(tokenizer.decode(tokenizer.encode(text).ids) == text);
  const std::string spaces(200000, ' ');
  CHECK(tokenizer.decode(tokenizer.encode(spaces).ids) == spaces);
}

TEST_CASE("a long text that nothing cuts into words has the tokens that merging it as a whole gives") {
  // spaces within tokens, at their ends and between, letters of two bytes, runs that may be cut in several ways
  const std::vector<std::pair<std::string, std::string>> merges{
      {"_", "a"}, {"a", "b"}, {"_a", "b"}, {"b", "_"}, {"a", "a"}, {"aa", "aa"}, {"_", "_"}, {"é", "b"}, {"ab", "éb"}};
  for (const bool fuses : {false, true}) {
    const Scratch scratch;
    json vocabulary{{"?", 0}};
    for (const char* letter : {"_", "a", "b", "é", "c"}) {
      vocabulary[letter] = vocabulary.size();
    }
    auto list = json::array();
    for (const auto& [left, right] : merges) {
      vocabulary[left + right] = vocabulary.size();
      list.push_back({left, right});
    }
    const Tokenizer tokenizer(put_changed(scratch, [&](json& parts) {
      parts["model"] = {
          {"type", "BPE"}, {"vocab", vocabulary}, {"merges", list}, {"unk_token", "?"}, {"fuse_unk", fuses}};
      parts["pre_tokenizer"] = nullptr;
    }));
    const std::vector<std::string> letters{"_", "a", "b", "é", "c", "x", "ü"};  // the last two are unknown
    std::vector<std::string> pieces;
    std::string text;
    std::uint32_t draw = 1;
    for (int i = 0; i < 1500; ++i) {
      draw = draw * 1664525 + 1013904223;
      pieces.push_back(letters[(draw >> 16) % letters.size()]);
      text += pieces.back();
    }
    std::vector<std::int64_t> expected, begins;
    std::int64_t at = 0;
    bool unknown = false;
    for (const auto& piece : merged(pieces, merges)) {
      const bool known = vocabulary.contains(piece);
      if (known || !unknown || !fuses) {
        expected.push_back(known ? vocabulary[piece].get<std::int64_t>() : 0);
        begins.push_back(at);
      }
      unknown = !known;
      at += static_cast<std::int64_t>(piece.size());
    }
    const auto found = tokenizer.encode(text);
    CHECK(std::vector<std::int64_t>(found.ids.begin(), found.ids.end()) == expected);
    std::vector<std::int64_t> found_begins;
    for (const auto& [begin, end] : found.offsets) {
      found_begins.push_back(begin);
    }
    CHECK(found_begins == begins);
  }
}

TEST_CASE("truncation and padding of a tokenizer.json are ignored") {
  const Scratch scratch;
  const Tokenizer tokenizer(put_changed(scratch, [](json&) {}));
  CHECK(tokenizer.encode("a b c").ids == std::vector{1, 2, 0});
  CHECK(tokenizer.decode(std::vector{1, 2}) == "a b");  // no decoder
}

TEST_CASE("texts that are not UTF-8") {
  const auto tokenizer = made("gpt2");
  CHECK_MESSAGE_HOLDS(DataError, "byte 2 (0xff) is not UTF-8", tokenizer.encode("ab\xff"));
  CHECK_MESSAGE_HOLDS(DataError, "byte 1 (0xc3)", tokenizer.encode("a\xc3"));
  CHECK_MESSAGE_HOLDS(DataError, "byte 0 (0xed)", tokenizer.encode("\xed\xa0\x80"));           // a surrogate
  CHECK_MESSAGE_HOLDS(DataError, "byte 0 (0xc0)", tokenizer.encode(std::string("\xc0\x80")));  // overlong
  CHECK_MESSAGE_HOLDS(DataError, "byte 1 (0xf5)", tokenizer.encode("a", "b\xf5\x80\x80\x80"));
}

TEST_CASE("a tokenizer.json that cannot be read says where and why") {
  const Scratch scratch;
  const auto message = [&](auto&& change) {
    const auto path = put_changed(scratch, change);
    const auto text = test::message_of<DataError>([&] { Tokenizer{path}; });
    CHECK(text.starts_with(path.string() + ": "));
    return text.substr(std::min(text.size(), path.string().size() + 2));
  };
  const auto holds = [](const std::string& text, std::string_view part) {
    CHECK_MESSAGE(text.find(part) != std::string::npos, "expected \"", part, "\" in \"", text, "\"");
  };
  CHECK_MESSAGE_HOLDS(DataError, "cannot read", Tokenizer(scratch / "absent.json"));
  CHECK_MESSAGE_HOLDS(DataError, "not JSON", Tokenizer(scratch.put("broken.json", "{\"model\": ")));
  CHECK_MESSAGE_HOLDS(DataError, "expected an object", Tokenizer(scratch.put("list.json", "[]")));
  holds(message([](json& parts) { parts.erase("model"); }), "no key \"model\"");
  holds(message([](json& parts) { parts["model"] = 3; }), "model: expected an object");
  holds(message([](json& parts) { parts["model"].erase("type"); }), "model: no key \"type\"");
  holds(message([](json& parts) { parts["model"]["type"] = "Wordlevel"; }),
        "model: unknown model \"Wordlevel\"; did you mean \"WordLevel\"? known: BPE, Unigram, WordLevel, WordPiece");
  holds(message([](json& parts) { parts["model"]["vocab"]["a"] = -1; }), "vocab: token \"a\" has the id -1");
  holds(message([](json& parts) { parts["model"]["vocab"]["a"] = 2000000000; }), "token \"a\" has the id 2000000000");
  holds(message([](json& parts) { parts["normalizer"]["type"] = "Uppercase"; }), "unknown normalizer \"Uppercase\"");
  holds(message([](json& parts) { parts["decoder"]["type"] = "CTC"; }), "decoder: unknown decoder \"CTC\"");
  holds(message([](json& parts) { parts["post_processor"]["type"] = "Other"; }), "unknown post-processor \"Other\"");
  holds(message([](json& parts) {
          parts["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {{{"type", "UnicodeScripts"}}}}};
        }),
        "pre_tokenizer.pretokenizers[0]: unknown pre-tokenizer \"UnicodeScripts\"");
  const auto split = [&](const char* expression) {
    return message([&](json& parts) {
      parts["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}};
    });
  };
  holds(split("a("), "pre_tokenizer.pattern: regular expression \"a(\"");
  holds(split("[a&&b]"), "\"&&\" within brackets is not supported");
  holds(split("\\bx"), "a word boundary is not supported");
  holds(split("x{1,3}+"), "an interval followed by +");
  holds(message([](json& parts) {
          parts["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", "AAA*"}};
        }),
        "normalizer: precompiled_charsmap: not base64");
  holds(message([](json& parts) {
          parts["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", "/////w=="}};
        }),
        "expected the size of a trie");
  holds(message([](json& parts) {
          parts["post_processor"] = json::parse(
              R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
                  "pair": [], "special_tokens": {}})");
        }),
        "token \"<s>\" is not in special_tokens");
  const auto merges = [&](const json& list) {
    return message([&](json& parts) {
      parts["model"] = {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}}}, {"merges", list}};
    });
  };
  holds(merges({"a b", "ab c"}), "merge 1 of \"ab\" and \"c\": token \"c\" is not in the vocabulary");
  holds(merges({"b a"}), "token \"ba\" is not in the vocabulary");
  holds(merges({"a b c"}), "expected \"LEFT RIGHT\" or [\"LEFT\", \"RIGHT\"]");
  holds(message([](json& parts) {
          parts["model"] = json::parse(R"({"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 1})");
        }),
        "unk_id = 1, expected less than 1");
  holds(message([](json& parts) { parts["added_tokens"] = {{{"id", 0}}}; }), "added_tokens[0]: no key \"content\"");

  const Tokenizer tokenizer(put_changed(scratch, [](json& parts) { parts["model"]["unk_token"] = "absent"; }));
  CHECK(tokenizer.encode("a b").ids == std::vector{1, 2});
  CHECK_MESSAGE_HOLDS(DataError, "\"c\" is not in the vocabulary, nor is the unknown token \"absent\"",
                      tokenizer.encode("a c"));
}

TEST_CASE("tokenizers that ask for too much are refused: nesting, stages, growth, long tokens") {
  const Scratch scratch;
  const auto with = [&](const char* key, const json& stage) {
    return put_changed(scratch, [&](json& parts) { parts[key] = stage; });
  };
  std::string nested = "{\"normalizer\": ";
  for (int i = 0; i < 100'000; ++i) {
    nested += R"({"type": "Sequence", "normalizers": [)";
  }
  CHECK_MESSAGE_HOLDS(DataError, "nests deeper than 512", Tokenizer(scratch.put("nested.json", nested)));
  const auto sequence = [](const char* key, const json& stage, std::size_t count) {
    return json{{"type", "Sequence"}, {key, std::vector<json>(count, stage)}};
  };
  const json lower{{"type", "Lowercase"}}, spaces{{"type", "WhitespaceSplit"}}, fuse{{"type", "Fuse"}};
  Tokenizer(with("normalizer", sequence("normalizers", lower, 64)));
  CHECK_MESSAGE_HOLDS(DataError, "normalizer: more than 64 stages",
                      Tokenizer(with("normalizer", sequence("normalizers", lower, 65))));
  CHECK_MESSAGE_HOLDS(DataError, "pre_tokenizer: more than 64 stages",
                      Tokenizer(with("pre_tokenizer", sequence("pretokenizers", spaces, 65))));
  CHECK_MESSAGE_HOLDS(DataError, "decoder: more than 64 stages",
                      Tokenizer(with("decoder", sequence("decoders", fuse, 65))));
  const json twice{{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
  const Tokenizer grows(with("normalizer", sequence("normalizers", twice, 24)));
  CHECK_MESSAGE_HOLDS(DataError, "makes a text more than 16 times as long", grows.encode("a"));
  CHECK(grows.encode("b").ids.size() == 1);
  const json bloat{{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(100'000, 'x')}};
  const Tokenizer bloats(with("decoder", bloat));
  CHECK_MESSAGE_HOLDS(DataError, "decoder makes a token of 1 bytes more than 16 times", bloats.decode(std::array{1}));
  CHECK_MESSAGE_HOLDS(
      DataError, "model: a token of 5000 bytes, expected at most 4096",
      Tokenizer(put_changed(scratch, [](json& parts) { parts["model"]["vocab"][std::string(5000, 'x')] = 3; })));
}

TEST_CASE("settings of wrong types beside a tokenizer are told or left out, never trusted") {
  for (const char* settings :
       {R"({"added_tokens_decoder": {"3": {"content": 5}}})", R"({"added_tokens_decoder": {"[[": {"content": "x"}}})",
        R"({"added_tokens_decoder": {"3": {"content": "x", "special": "yes", "normalized": 1}}})",
        R"({"extra_special_tokens": [{"content": 1}, 2, null]})", R"({"extra_special_tokens": 7})",
        R"({"add_bos_token": true, "bos_token": "nowhere"})", R"({"tokenizer_class": [], "unk_token": {}})"}) {
    const Scratch scratch;
    CAPTURE(settings);
    scratch.put("tokenizer_config.json", settings);
    for (const char* model : {"{}", "{\"vocab\": {\"a\": \"b\"}}", "3"}) {
      scratch.put("tokenizer.json", fmt::format("{{\"model\": {}}}", model));
      CHECK_THROWS_AS(Tokenizer(scratch / "tokenizer.json"), DataError);
    }
    CHECK_THROWS_AS(Tokenizer(put_changed(scratch,
                                          [](json& parts) {
                                            parts["added_tokens"] = {3, {{"content", 4}}};
                                          })),
                    DataError);
  }
}
