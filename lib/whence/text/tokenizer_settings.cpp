#include "whence/text/detail/tokenizer_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/text/detail/component.h"

namespace whence::detail {
namespace fs = std::filesystem;
namespace {
using nlohmann::json;

json read_if_there(const fs::path& path) {
  if (!fs::exists(path)) {
    return json::object();
  }
  auto out = read_json(path);
  if (!out.is_object()) {
    throw DataError(fmt::format("{}: expected an object", path.string()));
  }
  return out;
}

std::string text_in(const json& table, const char* key) {
  return table.contains(key) && table[key].is_string() ? table[key].get<std::string>() : "";
}

bool flag_in(const json& table, const char* key, bool otherwise) {
  return table.contains(key) && table[key].is_boolean() ? table[key].get<bool>() : otherwise;
}

/// A token's number as a key spells it.
std::optional<std::int32_t> id_in(const std::string& text) {
  std::int32_t id = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), id);
  return code == std::errc{} && end == text.data() + text.size() && id >= 0 ? std::optional(id) : std::nullopt;
}

/// transformers' class for the folder, without "Fast"; empty where its tokenizer.json stands alone.
std::string class_of(const json& settings, const json& config) {
  static const std::map<std::string, std::string> of_family = {
      {"bert", "BertTokenizer"},        {"roberta", "RobertaTokenizer"}, {"gpt2", "GPT2Tokenizer"},
      {"gpt_neox", "GPTNeoXTokenizer"}, {"qwen2", "Qwen2Tokenizer"},     {"distilbert", "BertTokenizer"},
      {"electra", "BertTokenizer"},     {"opt", "GPT2Tokenizer"},        {"qwen3", "Qwen2Tokenizer"},
      {"qwen3_moe", "Qwen2Tokenizer"}};
  auto name = text_in(settings, "tokenizer_class");
  name = name.empty() ? text_in(config, "tokenizer_class") : name;
  if (name.empty()) {
    const auto found = of_family.find(text_in(config, "model_type"));
    name = found == of_family.end() ? "" : found->second;
  }
  name = name.ends_with("Fast") ? name.substr(0, name.size() - 4) : name;
  return name == "DistilBertTokenizer" || name == "ElectraTokenizer" ? "BertTokenizer" : name;
}

class Settings {
 public:
  Settings(json& tokenizer, const fs::path& folder)
      : tokenizer_(tokenizer),
        path_(folder / "tokenizer_config.json"),
        settings_(read_if_there(path_)),
        class_(class_of(settings_, read_if_there(folder / "config.json"))) {
    // the older files count only where this one does not list the added tokens
    if (!settings_.contains("added_tokens_decoder")) {
      read_roles(read_if_there(folder / "special_tokens_map.json"), folder / "special_tokens_map.json");
      read_older_tokens(read_if_there(folder / "added_tokens.json"), folder / "added_tokens.json");
    }
    read_roles(settings_, path_);
    if (settings_.contains("auto_map")) {
      note("auto_map names code of the folder's own, which is not run");
    }
  }

  TokenizerSettings apply() {
    add_tokens();
    if (class_ == "BertTokenizer") {
      set_bert_normalizer();
    } else if (class_ == "RobertaTokenizer" || class_ == "GPT2Tokenizer" || class_ == "GPTNeoXTokenizer" ||
               class_ == "Qwen2Tokenizer") {
      set_prefix_space();
    } else if (class_ == "LlamaTokenizer" && flag("add_prefix_space").has_value()) {
      set_metaspace(*flag("add_prefix_space"));
    }
    if (class_ == "BertTokenizer" || class_ == "RobertaTokenizer") {
      set_ends();
    } else {
      set_begin_and_end();
    }
    out_.split_special_tokens = flag("split_special_tokens").value_or(false);
    return std::move(out_);
  }

 private:
  void note(const std::string& text) { out_.notes.push_back(fmt::format("{}: {}", path_.string(), text)); }

  std::optional<bool> flag(const char* key) const {
    if (!settings_.contains(key) || settings_[key].is_null()) {
      return std::nullopt;
    }
    return Component(settings_, path_.string()).flag_or(key, false);
  }

  void read_roles(const json& table, const fs::path& path) {
    const Component file(table, path.string());
    for (const auto role : kTokenizerRoles) {
      const auto key = fmt::format("{}_token", role);
      if (file.has(key.c_str())) {
        const auto& value = file.value(key.c_str());
        out_.roles.emplace(role, value.is_object() ? file.object(key.c_str()).text("content") : file.text(key.c_str()));
      }
    }
    for (const char* key : {"extra_special_tokens", "additional_special_tokens"}) {
      if (table.contains(key) && table[key].is_structured()) {
        for (const auto& token : table[key]) {
          extra_.push_back(token.is_string() ? token.get<std::string>() : text_in(token, "content"));
        }
      }
    }
  }

  void read_older_tokens(const json& table, const fs::path& path) {
    std::map<std::int64_t, std::string> by_id;
    for (const auto& [token, id] : table.items()) {
      if (!read_id(id)) {
        throw DataError(fmt::format("{}: \"{}\" = {}, expected a token's number", path.string(), token, brief(id)));
      }
      by_id[*read_id(id)] = token;
    }
    for (const auto& [id, token] : by_id) {
      older_.push_back(token);
    }
  }

  /// Those that tokenizer.json has not: listed with their flags, then those with a role, then other special ones.
  void add_tokens() {
    auto& added = tokenizer_["added_tokens"];
    added = added.is_array() ? added : json::array();
    std::set<std::string> known{""}, special_ones(extra_.begin(), extra_.end());
    for (const auto& token : added) {
      known.insert(text_in(token, "content"));
    }
    for (const auto& [role, token] : out_.roles) {
      special_ones.insert(token);
    }
    const auto add = [&](const std::string& content, json entry, bool special) {
      if (!known.insert(content).second) {
        return;
      }
      entry["content"] = content;
      entry["special"] = special;
      entry["normalized"] = flag_in(entry, "normalized", !special);
      added.push_back(std::move(entry));
    };
    const auto is_special = [&](const std::string& token) { return special_ones.contains(token); };
    std::map<std::int64_t, json> listed;
    if (settings_.contains("added_tokens_decoder")) {
      const Component file(settings_, path_.string());
      const auto list = file.object("added_tokens_decoder");
      for (const auto& [id, token] : settings_["added_tokens_decoder"].items()) {
        const auto number = id_in(id);
        if (!number) {
          list.fail(fmt::format("\"{}\", expected a token's number", id));
        }
        list.object(id.c_str()).text("content");
        listed[*number] = token;
      }
    }
    for (auto& [id, token] : listed) {
      const auto content = token["content"].get<std::string>();
      add(content, token, flag_in(token, "special", false) || is_special(content));
    }
    for (const auto& token : older_) {
      add(token, json::object(), is_special(token));
    }
    for (const auto role : kTokenizerRoles) {
      const auto found = out_.roles.find(role);
      add(found == out_.roles.end() ? "" : found->second, json::object(), true);
    }
    for (const auto& token : extra_) {
      add(token, json::object(), true);
    }
  }

  /// Sets table[key], which is `otherwise` where the table is silent, as `setting` decides. Notes where that changes it
  /// and `setting` is not given.
  void set(json& table, const char* key, const json& value, const char* setting, const json& otherwise) {
    const auto before = table.contains(key) ? table[key] : otherwise;
    if (before != value) {
      table[key] = value;
      if (!settings_.contains(setting) || settings_[setting].is_null()) {
        note(fmt::format("no {}, so it is {} as in transformers' {}, though tokenizer.json says {}", setting,
                         brief(value), class_, brief(before)));
      }
    }
  }

  void set_bert_normalizer() {
    auto& normalizer = tokenizer_["normalizer"];
    if (!normalizer.is_object() || text_in(normalizer, "type") != "BertNormalizer") {
      return;
    }
    const auto accents = flag("strip_accents");
    set(normalizer, "lowercase", flag("do_lower_case").value_or(true), "do_lower_case", true);
    set(normalizer, "strip_accents", accents ? json(*accents) : json(), "strip_accents", nullptr);
    set(normalizer, "handle_chinese_chars", flag("tokenize_chinese_chars").value_or(true), "tokenize_chinese_chars",
        true);
  }

  /// Every stage of this type in a pre-tokenizer or normalizer, or in the sequence that it is.
  static void for_stages(json& stage, const char* list, const std::function<void(json&)>& change) {
    if (!stage.is_object()) {
      return;
    }
    if (text_in(stage, "type") != "Sequence") {
      change(stage);
    } else if (stage.contains(list)) {
      for (auto& inner : stage[list]) {
        for_stages(inner, list, change);
      }
    }
  }

  void set_prefix_space() {
    for_stages(tokenizer_["pre_tokenizer"], "pretokenizers", [&](json& stage) {
      if (text_in(stage, "type") == "ByteLevel") {
        set(stage, "add_prefix_space", flag("add_prefix_space").value_or(false), "add_prefix_space", true);
      }
    });
    if (auto& last = tokenizer_["post_processor"]; last.is_object() && text_in(last, "type") == "RobertaProcessing") {
      last["add_prefix_space"] = flag("add_prefix_space").value_or(false);  // for offsets
    }
  }

  /// SentencePiece's space before a text, which is a normalizer or a stage that marks words.
  void set_metaspace(bool prefix) {
    auto& normalizer = tokenizer_["normalizer"];
    if (!prefix && normalizer.is_object()) {
      auto& list = text_in(normalizer, "type") == "Sequence" ? normalizer["normalizers"] : normalizer;
      if (list.is_array()) {
        list.erase(std::remove_if(list.begin(), list.end(),
                                  [](const json& stage) { return text_in(stage, "type") == "Prepend"; }),
                   list.end());
      } else if (text_in(normalizer, "type") == "Prepend") {
        normalizer = nullptr;
      }
    }
    for_stages(tokenizer_["pre_tokenizer"], "pretokenizers", [&](json& stage) {
      if (text_in(stage, "type") == "Metaspace") {
        const auto before = text_in(stage, "prepend_scheme");
        stage["prepend_scheme"] = !prefix ? "never" : before.empty() || before == "never" ? "first" : before;
        stage.erase("add_prefix_space");
      }
    });
  }

  /// The id that a token will have; AddedTokens gives those that the vocabulary has not.
  std::uint32_t id_of(const std::string& token) const {
    const auto model = Component(tokenizer_, (path_.parent_path() / "tokenizer.json").string()).object("model");
    const auto& vocabulary = model.value("vocab");
    if (vocabulary.is_object() && vocabulary.contains(token)) {
      const auto id = read_id(vocabulary[token]);
      if (!id) {
        model.fail(
            fmt::format("vocab: token \"{}\" has the id {}, expected a whole number", token, brief(vocabulary[token])));
      }
      return static_cast<std::uint32_t>(*id);
    }
    if (vocabulary.is_array()) {
      for (std::size_t i = 0; i < vocabulary.size(); ++i) {
        if (vocabulary[i].is_array() && !vocabulary[i].empty() && vocabulary[i][0] == token) {
          return static_cast<std::uint32_t>(i);
        }
      }
    }
    auto next = static_cast<std::uint32_t>(vocabulary.size());
    for (const auto& entry : tokenizer_["added_tokens"]) {
      const auto content = text_in(entry, "content");
      const bool known = vocabulary.is_object() && vocabulary.contains(content);
      if (content == token) {
        return next;
      }
      next += known ? 0 : 1;
    }
    throw DataError(fmt::format("{}: \"{}\" is no token of tokenizer.json", path_.string(), token));
  }

  static json special_piece(const std::string& token, unsigned type) {
    return {{"SpecialToken", {{"id", token}, {"type_id", type}}}};
  }
  static json text_piece(const char* text, unsigned type) { return {{"Sequence", {{"id", text}, {"type_id", type}}}}; }
  json template_of(json single, json pair, const std::vector<std::string>& tokens) const {
    json out{{"type", "TemplateProcessing"}, {"single", std::move(single)}, {"pair", std::move(pair)}};
    out["special_tokens"] = json::object();
    for (const auto& token : tokens) {
      out["special_tokens"][token] = {{"id", token}, {"ids", {id_of(token)}}, {"tokens", {token}}};
    }
    return out;
  }

  /// The tokens at a text's ends that BERT and RoBERTa have are the ones with these roles, where a file gives them.
  void set_ends() {
    auto& stage = tokenizer_["post_processor"];
    if (!stage.is_object() || (out_.roles.count("cls") == 0 && out_.roles.count("sep") == 0)) {
      return;
    }
    const auto role = [&](const char* name, const char* otherwise) {
      const auto found = out_.roles.find(name);
      return found == out_.roles.end() ? std::string(otherwise) : found->second;
    };
    if (class_ == "RobertaTokenizer") {
      if (text_in(stage, "type") == "RobertaProcessing") {
        const auto cls = role("cls", "<s>"), sep = role("sep", "</s>");
        stage["cls"] = {cls, id_of(cls)};
        stage["sep"] = {sep, id_of(sep)};
      }
      return;
    }
    const auto cls = role("cls", "[CLS]"), sep = role("sep", "[SEP]");
    stage = template_of(
        {special_piece(cls, 0), text_piece("A", 0), special_piece(sep, 0)},
        {special_piece(cls, 0), text_piece("A", 0), special_piece(sep, 0), text_piece("B", 1), special_piece(sep, 1)},
        {cls, sep});
  }

  /// The token that tokenizer.json puts at a text's beginning or end; empty where none.
  std::string end_token(bool beginning) const {
    const auto* stage = &tokenizer_["post_processor"];
    if (stage->is_object() && text_in(*stage, "type") == "Sequence" && stage->contains("processors")) {
      for (const auto& inner : (*stage)["processors"]) {
        stage = text_in(inner, "type") == "TemplateProcessing" ? &inner : stage;
      }
    }
    if (!stage->is_object() || text_in(*stage, "type") != "TemplateProcessing" || !stage->contains("single") ||
        !(*stage)["single"].is_array() || (*stage)["single"].empty()) {
      return {};
    }
    const auto& piece = beginning ? (*stage)["single"].front() : (*stage)["single"].back();
    return piece.contains("SpecialToken") ? text_in(piece["SpecialToken"], "id") : "";
  }

  /// add_bos_token and add_eos_token: transformers 4 follows them, 5 what tokenizer.json does.
  void set_begin_and_end() {
    const auto begin_now = end_token(true), end_now = end_token(false);
    const bool neox = class_ == "GPTNeoXTokenizer";  // makes both anew
    const bool want_begin = flag("add_bos_token").value_or(neox ? false : !begin_now.empty());
    const bool want_end = flag("add_eos_token").value_or(neox ? false : !end_now.empty());
    if (want_begin == !begin_now.empty() && want_end == !end_now.empty()) {
      return;
    }
    if (class_ == "GPT2Tokenizer" || class_ == "Qwen2Tokenizer") {
      note(fmt::format("add_bos_token and add_eos_token are not followed, as by transformers' {}: tokenizer.json is",
                       class_));
      return;
    }
    std::vector<std::string> begin, end;  // one token or none
    if (want_begin) {
      begin.push_back(begin_now.empty() ? token_of("bos", "add_bos_token") : begin_now);
    }
    if (want_end) {
      end.push_back(end_now.empty() ? token_of("eos", "add_eos_token") : end_now);
    }
    put_around(begin, end);
    if (!neox || flag("add_bos_token").has_value() || flag("add_eos_token").has_value()) {
      note(
          fmt::format("add_bos_token = {} and add_eos_token = {} are followed, as by transformers 4; tokenizer.json, "
                      "which transformers 5 follows, says {} and {}: to have that, take the keys away",
                      want_begin, want_end, !begin_now.empty(), !end_now.empty()));
    } else {
      note(
          "transformers' GPTNeoXTokenizer adds no token to a text unless add_bos_token or add_eos_token says so here, "
          "so those of tokenizer.json are left out");
    }
  }

  /// The token that has this role, which `key` asks for.
  const std::string& token_of(const char* role, const char* key) const {
    const auto found = out_.roles.find(role);
    if (found == out_.roles.end()) {
      throw DataError(fmt::format("{}: {} = true, but no {}_token is named", path_.string(), key, role));
    }
    return found->second;
  }

  /// Makes the post-processor anew, with these tokens around every text; of the old one, trimming stays.
  void put_around(const std::vector<std::string>& begin, const std::vector<std::string>& end) {
    const auto around = [&](const char* text, unsigned type) {
      auto pieces = json::array();
      for (const auto& token : begin) {
        pieces.push_back(special_piece(token, type));
      }
      pieces.push_back(text_piece(text, type));
      for (const auto& token : end) {
        pieces.push_back(special_piece(token, type));
      }
      return pieces;
    };
    auto pair = around("A", 0);
    const auto second = around("B", 1);
    pair.insert(pair.end(), second.begin(), second.end());
    auto tokens = begin;
    tokens.insert(tokens.end(), end.begin(), end.end());
    auto made = template_of(around("A", 0), std::move(pair), tokens);
    auto& stage = tokenizer_["post_processor"];
    auto trimming = json::array();
    for_stages(stage, "processors", [&](json& inner) {
      if (text_in(inner, "type") == "ByteLevel") {
        trimming.push_back(inner);
      }
    });
    if (!trimming.empty()) {
      trimming.push_back(std::move(made));
      made = {{"type", "Sequence"}, {"processors", std::move(trimming)}};
    }
    stage = std::move(made);
  }

  json& tokenizer_;
  fs::path path_;                           // of tokenizer_config.json
  json settings_;                           // what is in it
  std::string class_;                       // as class_of() says
  std::vector<std::string> extra_, older_;  // special tokens without a role; tokens of added_tokens.json
  TokenizerSettings out_;
};

}  // namespace

TokenizerSettings apply_settings(json& tokenizer, const fs::path& folder) {
  return Settings(tokenizer, folder).apply();
}

}  // namespace whence::detail
