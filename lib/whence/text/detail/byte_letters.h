#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace whence::detail {

/// The characters that byte-level vocabularies spell bytes with: printable Latin-1 stands for itself, the other 68
/// bytes are U+0100 and on, in order. A. Radford et al., "Language Models are Unsupervised Multitask Learners", 2019,
/// encoder.py.
const std::array<char32_t, 256>& byte_letters();

/// `bytes` so spelled.
std::string spell_bytes(std::string_view bytes);

/// The bytes that `letters` spell; nothing when one of them spells none.
std::optional<std::string> read_letters(std::string_view letters);

}  // namespace whence::detail
