#pragma once
#include <array>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace whence::detail {

/// What the files beside a tokenizer.json say: tokenizer_config.json, special_tokens_map.json, added_tokens.json, and
/// of config.json the family, whose class of transformers has settings of its own.
struct TokenizerSettings {
  std::map<std::string, std::string, std::less<>> roles;  ///< The token of each role: "bos", "mask".
  bool split_special_tokens = false;                      ///< Special tokens that are written in a text are text there.
  std::vector<std::string> notes;  ///< A line for each that was followed though tokenizer.json says otherwise.
};

inline constexpr std::array<std::string_view, 7> kTokenizerRoles{"bos", "eos", "unk", "pad", "mask", "cls", "sep"};

/// Reads them and changes `tokenizer`, a tokenizer.json of that folder, as transformers' AutoTokenizer does. Throws
/// DataError naming the file and the key.
TokenizerSettings apply_settings(nlohmann::json& tokenizer, const std::filesystem::path& folder);

}  // namespace whence::detail
