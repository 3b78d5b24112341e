#include "whence/icl/prompt.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "whence/core/error.h"
#include "whence/core/file_name.h"
#include "whence/core/json.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kBlanks = " \t\r\n";

void check_keys(const Json& object, const std::vector<std::string>& known, const std::string& where) {
  if (!object.is_object()) {
    throw DataError(fmt::format("{}: expected an object, got {}", where, brief(object)));
  }
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      throw DataError(fmt::format("{}: {}", where, unknown_name("key", key, known)));
    }
  }
}

/// A text, or a number or a truth value as JSON spells it.
std::string text_of(const Json& value, const std::string& where) {
  if (value.is_string()) {
    return value.get<std::string>();
  }
  if (value.is_number() || value.is_boolean()) {
    return value.dump();
  }
  throw DataError(fmt::format("{} = {}, expected a text", where, brief(value)));
}

Exchange exchange_of(const Json& json, bool needs_output, const std::string& where) {
  check_keys(json, {"input", "output"}, where);
  if (!json.contains("input")) {
    throw DataError(fmt::format("{}: the key \"input\" is missing", where));
  }
  Exchange out{.input = text_of(json["input"], where + ": input")};
  if (json.contains("output") && !json["output"].is_null()) {
    out.output = text_of(json["output"], where + ": output");
    if (out.output->find_first_not_of(kBlanks) == std::string::npos) {
      throw DataError(fmt::format("{}: output = \"{}\" is blank", where, *out.output));
    }
  } else if (needs_output) {
    throw DataError(fmt::format("{}: the key \"output\" is missing", where));
  }
  return out;
}

std::vector<Exchange> exchanges_of(const Json& json, const char* key, bool needs_output, const std::string& where) {
  std::vector<Exchange> out;
  if (!json.contains(key)) {
    return out;
  }
  if (!json[key].is_array()) {
    throw DataError(fmt::format("{}: {} = {}, expected a list", where, key, brief(json[key])));
  }
  for (const auto& entry : json[key]) {
    out.push_back(exchange_of(entry, needs_output, fmt::format("{}: {}[{}]", where, key, out.size())));
  }
  return out;
}

constexpr auto kShape = R"({"demonstrations": [{"input": "…", "output": "…"}, …], "queries": [{"input": "…"}, …]})";

PromptTask task_of(const Json& json, const std::string& name, const std::string& where) {
  if (json.is_array() || (json.is_object() && json.contains("input"))) {
    throw DataError(
        fmt::format("{}: examples by themselves, expected a task that says which are asked: {}", where, kShape));
  }
  check_keys(json, {"name", "demonstrations", "queries", "validation", "template", "separator"}, where);
  PromptTask task{.name = name,
                  .demonstrations = exchanges_of(json, "demonstrations", true, where),
                  .queries = exchanges_of(json, "queries", false, where),
                  .validation = exchanges_of(json, "validation", true, where)};
  if (json.contains("name")) {
    task.name = text_of(json["name"], where + ": name");
  }
  check_file_name(task.name, where + (json.contains("name") ? ": name" : ": name, taken from the file's,"));
  if (json.contains("template")) {
    task.pattern = text_of(json["template"], where + ": template");
  }
  if (json.contains("separator")) {
    task.separator = text_of(json["separator"], where + ": separator");
  }
  for (const auto& [list, key] :
       {std::pair(&task.queries, "queries"), std::pair(&task.demonstrations, "demonstrations")}) {
    if (list->empty()) {
      throw DataError(fmt::format("{}: no {}, expected at least one: {}", where, key, kShape));
    }
  }
  return task;
}

/// visit(json, name, where) for the file's one value, or each line's.
template <class Visit>
void for_each_value(const fs::path& path, const Visit& visit) {
  if (path.extension() != ".jsonl") {
    visit(read_json(path, {.repeated_keys = false}), path.stem().string(), path.string());
    return;
  }
  read_json_lines(path, [&](const Json& json, std::int64_t line, const std::string& where) {
    visit(json, fmt::format("{}-{}", path.stem().string(), line), where);
  });
}

std::string trimmed_end(std::string text) {
  text.erase(text.find_last_not_of(kBlanks) + 1);
  return text;
}

}  // namespace

std::vector<PromptTask> read_tasks(const fs::path& path) {
  std::vector<fs::path> files{path};
  if (fs::is_directory(path)) {
    files.clear();
    for (const auto& entry : fs::directory_iterator(path)) {
      if (entry.path().extension() == ".json" || entry.path().extension() == ".jsonl") {
        files.push_back(entry.path());
      }
    }
    std::sort(files.begin(), files.end());
  }
  std::vector<PromptTask> tasks;
  std::set<std::string> names;
  for (const auto& file : files) {
    for_each_value(file, [&](const Json& json, const std::string& name, const std::string& where) {
      tasks.push_back(task_of(json, name, where));
      if (!names.insert(tasks.back().name).second) {
        throw DataError(
            fmt::format("{}: name = \"{}\" is another task's, expected names that differ", where, tasks.back().name));
      }
    });
  }
  if (tasks.empty()) {
    throw DataError(fmt::format("{}: no task, expected .json or .jsonl files with one at least", path.string()));
  }
  return tasks;
}

std::vector<Exchange> read_pool(const fs::path& path) {
  std::vector<Exchange> pool;
  for_each_value(path, [&](const Json& json, const std::string&, const std::string& where) {
    if (json.is_object() && json.contains("demonstrations")) {
      const auto found = exchanges_of(json, "demonstrations", true, where);
      pool.insert(pool.end(), found.begin(), found.end());
    } else {
      pool.push_back(exchange_of(json, true, where));
    }
  });
  if (pool.empty()) {
    throw DataError(fmt::format("{}: no demonstration, expected at least one", path.string()));
  }
  return pool;
}

Json to_json(const PromptTask& task) {
  const auto list = [](const std::vector<Exchange>& exchanges) {
    auto out = Json::array();
    for (const auto& exchange : exchanges) {
      out.push_back({{"input", exchange.input}});
      if (exchange.output) {
        out.back()["output"] = *exchange.output;
      }
    }
    return out;
  };
  Json json{{"name", task.name}, {"template", task.pattern}, {"separator", task.separator}};
  json["demonstrations"] = list(task.demonstrations);
  json["queries"] = list(task.queries);
  if (!task.validation.empty()) {
    json["validation"] = list(task.validation);
  }
  return json;
}

PromptWriter::PromptWriter(PromptTask task, Tokenizer tokenizer)
    : task_(std::move(task)),
      tokenizer_(std::move(tokenizer)),
      template_(task_.pattern, fmt::format("task {}: template", task_.name), {"input", "output"}) {
  const auto order = template_.order();
  if (std::count(order.begin(), order.end(), 0U) == 0 || std::count(order.begin(), order.end(), 1U) != 1 ||
      order.back() != 1) {
    throw InvalidArgument(fmt::format("task {}: template = \"{}\", expected {{input}} and behind it, once, {{output}}",
                                      task_.name, task_.pattern));
  }
}

PromptWriter::Filled PromptWriter::fill(const std::string& input, const std::string& output) const {
  std::vector<std::size_t> begins;
  Filled filled{.text = template_.fill({input, output}, &begins), .output = 0, .end = 0};
  filled.output = begins.back();
  filled.end = filled.output + output.size();
  return filled;
}

std::string PromptWriter::demonstration(std::size_t i) const {
  return fill(task_.demonstrations[i].input, *task_.demonstrations[i].output).text;
}

std::string PromptWriter::join(const std::vector<std::int64_t>& order, std::vector<Filled>* filled) const {
  std::string text;
  for (const auto i : order) {
    const auto& demonstration = task_.demonstrations[static_cast<std::size_t>(i)];
    auto part = fill(demonstration.input, *demonstration.output);
    text += part.text + task_.separator;
    if (filled != nullptr) {
      filled->push_back(std::move(part));
    }
  }
  return text;
}

std::string PromptWriter::text(const std::vector<std::int64_t>& order, const Exchange& query) const {
  const auto asked = fill(query.input, "");
  return join(order, nullptr) + trimmed_end(asked.text.substr(0, asked.output));
}

TokenizedPrompt PromptWriter::tokenize(const std::vector<std::int64_t>& order, const Exchange& query) const {
  std::vector<Filled> filled;
  const auto before = join(order, &filled);
  const auto text = this->text(order, query);
  const auto encoding = tokenizer_.encode(text);
  auto count = encoding.ids.size();
  while (count > 0 && encoding.special[count - 1]) {  // what a post-processor puts behind a finished text
    --count;
  }
  TokenizedPrompt out;
  out.tokens.assign(encoding.ids.begin(), encoding.ids.begin() + static_cast<std::ptrdiff_t>(count));
  /// The first token that reaches beyond a byte; bytes are asked for in order.
  std::size_t t = 0;
  const auto reaching = [&](std::size_t byte) {
    while (t < count && (encoding.special[t] || encoding.offsets[t].second <= static_cast<std::int64_t>(byte))) {
      ++t;
    }
    return static_cast<std::int64_t>(t);
  };
  std::size_t begin = 0;
  for (const auto& part : filled) {
    const auto first = reaching(begin);
    out.labels.push_back(reaching(begin + part.text.find_first_not_of(kBlanks, part.output)));
    out.columns.push_back(out.labels.back() - 1);
    auto after = static_cast<std::size_t>(out.labels.back());
    while (after < count && encoding.offsets[after].first < static_cast<std::int64_t>(begin + part.end)) {
      ++after;
    }
    out.outputs.push_back({out.labels.back(), static_cast<std::int64_t>(after)});
    begin += part.text.size();
    out.demonstrations.push_back({first, reaching(begin)});
    begin += task_.separator.size();
    if (out.columns.back() < 0) {
      throw DataError(fmt::format("task {}: no token stands before the output of demonstration {}", task_.name,
                                  out.columns.size() - 1));
    }
  }
  out.query = reaching(before.size());
  if (out.query >= static_cast<std::int64_t>(count)) {
    throw DataError(fmt::format("task {}: the query \"{}\" has no token of its own", task_.name, query.input));
  }
  return out;
}

std::vector<std::int64_t> PromptWriter::answer(const Exchange& query, const std::string& output) const {
  const auto whole = fill(query.input, output);
  const auto asked = trimmed_end(whole.text.substr(0, whole.output));
  const auto cut = [&](const std::string& text) {
    const auto encoding = tokenizer_.encode(text);
    std::vector<std::int64_t> ids;
    for (std::size_t t = 0; t < encoding.ids.size(); ++t) {
      if (!encoding.special[t]) {
        ids.push_back(encoding.ids[t]);
      }
    }
    return ids;
  };
  const auto prompt = cut(asked);
  auto tokens = cut(asked + whole.text.substr(asked.size(), whole.end - asked.size()));
  if (tokens.size() > prompt.size() && std::equal(prompt.begin(), prompt.end(), tokens.begin())) {
    tokens.erase(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(prompt.size()));
  } else {  // the prompt's last token and the output's first would be one: the output by itself
    tokens = cut(output);
  }
  if (tokens.empty()) {
    throw DataError(fmt::format("task {}: the output \"{}\" has no token", task_.name, output));
  }
  return tokens;
}

std::string PromptWriter::output_of(const std::string& generated) const {
  const auto sample = fill("", "\x01");  // what stands between an output and the next demonstration
  auto after = sample.text.substr(sample.end) + task_.separator;
  const auto begin = generated.find_first_not_of(kBlanks);
  if (begin == generated.npos) {
    return "";
  }
  after = after.substr(0, after.find_first_not_of(kBlanks) == 0 ? after.size() : 1);  // of blanks the first ends it
  auto out = generated.substr(begin);
  out = out.substr(0, after.empty() ? out.npos : out.find(after));
  return trimmed_end(out);
}

}  // namespace whence
