#include <fmt/format.h>

#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/icl/prompt.h"

using namespace whence;
using test::Scratch;
namespace fs = std::filesystem;

namespace {

Tokenizer tokenizer(const std::string& name) {
  return Tokenizer(fs::path(WHENCE_TESTS) / "text/tokenizers" / (name + ".json"));
}

PromptTask reviews() {
  return {.name = "reviews",
          .demonstrations = {{"A very positive Output: bad film", "positive"},
                             {"so dull", "very negative"},
                             {"Größe 10/10 😀", "positive"}},
          .queries = {{"it shines", "positive"}, {"meh", {}}}};
}

std::string decoded(const Tokenizer& tokenizer, const std::vector<std::int64_t>& tokens, std::int64_t begin,
                    std::int64_t end) {
  std::vector<std::int32_t> ids(tokens.begin() + begin, tokens.begin() + end);
  return tokenizer.decode(ids, false);
}

std::string trimmed(std::string text) {
  text.erase(0, text.find_first_not_of(" \n"));
  text.erase(text.find_last_not_of(" \n") + 1);
  return text;
}

}  // namespace

TEST_SUITE_BEGIN("icl");

TEST_CASE("places are found by offsets, whatever the tokenizer and the words inside an input") {
  for (const char* name : {"gpt2", "llama2", "llama3", "mistral", "qwen2", "smollm2"}) {
    CAPTURE(name);
    const auto tokens = tokenizer(name);
    const auto task = reviews();
    const PromptWriter writer(task, tokens);
    for (const std::vector<std::int64_t>& order :
         {std::vector<std::int64_t>{0, 1, 2}, std::vector<std::int64_t>{2, 0}, std::vector<std::int64_t>{}}) {
      const auto prompt = writer.tokenize(order, task.queries[0]);
      const auto text = writer.text(order, task.queries[0]);
      CHECK(text.ends_with("Input: it shines\nOutput:"));
      const auto count = static_cast<std::int64_t>(prompt.tokens.size());
      REQUIRE(prompt.labels.size() == order.size());
      for (std::size_t k = 0; k < order.size(); ++k) {
        const auto& demonstration = task.demonstrations[static_cast<std::size_t>(order[k])];
        CHECK(prompt.columns[k] == prompt.labels[k] - 1);
        const auto [begin, end] = prompt.demonstrations[k];
        CHECK(decoded(tokens, prompt.tokens, begin, prompt.labels[k]).ends_with("Output:"));
        CHECK(trimmed(decoded(tokens, prompt.tokens, prompt.labels[k], end)) == *demonstration.output);
      }
      const auto own = trimmed(decoded(tokens, prompt.tokens, prompt.query, count));
      CHECK(own.starts_with("Input: it shines"));
      CHECK(own.ends_with("Output:"));
      // an answer goes on from the prompt as in the text whole
      const auto answer = writer.answer(task.queries[0], "very negative");
      const auto whole = tokens.encode(text + " very negative").ids;
      REQUIRE(static_cast<std::size_t>(count) < whole.size());
      CHECK(std::vector<std::int64_t>(whole.begin() + count,
                                      whole.begin() + count + static_cast<std::int64_t>(answer.size())) == answer);
    }
  }
}

TEST_CASE("a template may say anything around its two places, and generated text ends where an output does") {
  const auto tokens = tokenizer("gpt2");
  auto task = reviews();
  task.pattern = "<<{input}>> {{is}} [{output}].";
  task.separator = " ";
  const PromptWriter writer(task, tokens);
  CHECK(writer.demonstration(1) == "<<so dull>> {is} [very negative].");
  CHECK(writer.text({1}, task.queries[1]) == "<<so dull>> {is} [very negative]. <<meh>> {is} [");
  CHECK(writer.output_of("good]. <<next>>") == "good");
  const auto lines = reviews();
  const PromptWriter plain(lines, tokens);
  CHECK(plain.output_of(" very good \nInput: x") == "very good");
  CHECK(plain.output_of("\n\nbad") == "bad");
  CHECK(plain.output_of(" \n") == "");
}

TEST_CASE("templates and tasks that cannot be are one line that names them") {
  const auto tokens = tokenizer("gpt2");
  const auto refuses = [&](const std::string& pattern, const char* part) {
    auto task = reviews();
    task.pattern = pattern;
    CHECK_THROWS_WITH_AS(PromptWriter(task, tokens), doctest::Contains(part), InvalidArgument);
  };
  refuses("nothing", "has no placeholder");
  refuses("{input}", "expected {input} and behind it, once, {output}");
  refuses("{output} {input}", "expected {input} and behind it, once, {output}");
  refuses("{input} {output} {output}", "expected {input} and behind it, once, {output}");
  refuses("{input} {otput}", "did you mean \"output\"?");
  refuses("{input} {output", "a brace has no end");

  const Scratch scratch;
  const auto fails = [&](const std::string& text, const std::string& reason, const std::string& file = "task.json") {
    scratch.put(file, text);
    CHECK_THROWS_WITH_AS(read_tasks(scratch / file), doctest::Contains(reason.c_str()), DataError);
  };
  fails("[", "not JSON");
  fails("3", "expected an object, got 3");
  fails("{}", "no queries, expected at least one: {\"demonstrations\": [{\"input\": ");
  fails(R"({"queries": [{"input": "x"}]})", "no demonstrations, expected at least one: {\"demonstrations\": [");
  fails(R"({"queries": [{"input": "x"}], "demonstrations": []})", "no demonstrations, expected at least one");
  fails(R"([{"input": "x", "output": "y"}])", "examples by themselves, expected a task that says which are asked");
  fails("{\"input\": \"x\", \"output\": \"y\"}\n", "line 1: examples by themselves, expected a task", "lines.jsonl");
  fails(R"({"queries": [{"input": "x"}], "demos": []})", "unknown key \"demos\"");
  fails(R"({"queries": [{"input": "x"}], "demonstrations": [{"input": "a"}]})",
        "demonstrations[0]: the key \"output\" is missing");
  fails(R"({"queries": [{"input": "x"}], "demonstrations": [{"input": "a", "output": " "}]})",
        "output = \" \" is blank");
  fails(R"({"queries": [{"output": "x"}]})", "queries[0]: the key \"input\" is missing");
  fails(R"({"queries": [{"input": ["x"]}]})", "queries[0]: input = [\"x\"], expected a text");
  fails(R"({"queries": {"input": "x"}})", "expected a list");
  fails(R"({"name": "../x", "queries": [{"input": "x"}]})",
        "task.json: name = \"../x\", expected the name of a folder");
  const std::string own = R"("demonstrations": [{"input": "y", "output": "z"}])";
  fails("{\"queries\": [{\"input\": 1}], " + own + "}\nfalse\n", "line 2: expected an object", "tasks.jsonl");
  fails("\n", "no task", "none.jsonl");
  const std::string one = R"({"name": "a", "queries": [{"input": "x"}], )" + own + "}";
  fails(one + "\n" + one, "name = \"a\" is another task's", "twice.jsonl");
  for (const char* file : {"...json", "..jsonl", ".hidden.json", "a\nb.json"}) {  // names of tasks are names of folders
    fails("{\"queries\": [{\"input\": \"x\"}], " + own + "}", "name, taken from the file's, = ", file);
  }
  CHECK_THROWS_AS(read_tasks(scratch / "absent.json"), DataError);
}

TEST_CASE("tasks come from a file, lines or a folder, and are written as they are read") {
  const Scratch scratch;
  const std::string own = R"(, "demonstrations": [{"input": "y", "output": "z"}]})";
  scratch.put("b.json", R"({"queries": [{"input": 3, "output": true}], "separator": "\n")" + own);
  scratch.put("a.jsonl",
              R"({"queries": [{"input": "x"}])" + own + "\n\n" + R"({"name": "z", "queries": [{"input": "y"}])" + own);
  const auto tasks = read_tasks(scratch.folder());
  REQUIRE(tasks.size() == 3);
  CHECK(tasks[0].name == "a-1");
  CHECK(tasks[1].name == "z");
  CHECK(tasks[2].name == "b");
  CHECK(tasks[2].queries[0].input == "3");
  CHECK(*tasks[2].queries[0].output == "true");
  CHECK(!tasks[0].queries[0].output);
  scratch.put("again.json", to_json(reviews()).dump());
  CHECK(to_json(read_tasks(scratch / "again.json")[0]) == to_json(reviews()));
  scratch.put("pool.jsonl", "{\"input\": \"x\", \"output\": \"y\"}\n");
  CHECK(read_pool(scratch / "pool.jsonl").size() == 1);
  CHECK(read_pool(scratch / "again.json").size() == 3);
  const auto example = read_tasks(fs::path(WHENCE_TESTS) / "../examples/messages.json")[0];
  CHECK(example.demonstrations.size() == 12);
  CHECK(example.validation.size() == 4);
}

TEST_SUITE_END();
