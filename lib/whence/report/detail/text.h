#pragma once
#include <string>
#include <string_view>

namespace whence::detail {

/// `text` as character data or a quoted attribute of HTML and SVG. Control characters, which neither may hold, become
/// U+FFFD.
std::string escape(std::string_view text);

/// A printed number with a proper minus sign and without padding in the exponent: "1e-05" becomes "1e−5".
std::string tidy_number(std::string_view text);

/// Three significant digits, tidy: "0.123", "−1.2e−5". `always_sign` puts "+" before positive numbers.
std::string number(double value, bool always_sign = false);

}  // namespace whence::detail
