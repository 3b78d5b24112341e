#include <fmt/format.h>

#include "icl_result.h"
#include "icl_text.h"

namespace whence::cli {

using Json = nlohmann::ordered_json;

Page icl_page(const nlohmann::ordered_json& json) {
  Page page;
  page.title = fmt::format("What the demonstrations of “{}” do", json["task"].get<std::string>());
  page.subtitle =
      fmt::format("{} demonstrations in {} tokens, layers {}, position {}", json["demonstrations"].size(),
                  json["prompt-tokens"].get<int>(), json["layers"].dump(), json.value("position", "column"));
  page.footer = "Made by whence. Scores are influences on the ridge regression that the hidden states imply.";
  page.warnings = json["warnings"].get<std::vector<std::string>>();
  for (const auto& [name, value] : icl_evidence(json)) {
    page.evidence.push_back({name, value});
  }
  for (const char* key : {"model", "dtype", "method", "kernel", "lambda", "self-lambda", "position", "targets"}) {
    if (json["options"].contains(key)) {
      page.evidence.push_back({key, json["options"][key].get<std::string>()});
    }
  }
  const auto card = [&](const std::string& title, const Json& test, const Json* query) {
    PromptCard out{.title = title};
    for (std::size_t i = 0; i < test.size(); ++i) {
      const auto& demonstration = json["demonstrations"][i];
      PromptPart part{.number = static_cast<std::int64_t>(i),
                      .text = demonstration["input"].get<std::string>(),
                      .answer = demonstration["output"].get<std::string>(),
                      .score = test[i].is_number() ? test[i].get<double>() : 0};
      if (query == nullptr && !json["self"].is_null()) {
        part.note = "self " + value_text(json["self"][i]);
      }
      if (query != nullptr && query->contains("leave-one-out")) {
        part.note = "leave-one-out " + value_text((*query)["leave-one-out"][i]);
      }
      if (query != nullptr && query->contains("verify")) {
        part.note += ", removed " + value_text((*query)["verify"]["log-probability"][i]);
      }
      out.parts.push_back(std::move(part));
    }
    if (query != nullptr) {
      out.question = (*query)["input"].get<std::string>();
      out.answer = answered(*query);
    }
    return out;
  };
  if (json["mean-test"].is_null()) {
    return page;
  }
  page.prompts.push_back(card("All queries, on average", json["mean-test"], nullptr));
  for (const auto& query : json["queries"]) {
    page.prompts.push_back(card(fmt::format("Query {}", query["query"].get<int>()), query["test"], &query));
  }
  return page;
}

}  // namespace whence::cli
