#pragma once
#include <string>
#include <string_view>

namespace whence {

/// The one rule for a name from outside that becomes the name of a file or folder. Throws DataError ("WHAT = NAME,
/// expected …") unless it is 1 to 200 bytes of UTF-8 without a slash or a control character, and no dot comes first:
/// what is then written lies in the folder that it was meant for, and neither beside it nor hidden.
void check_file_name(std::string_view name, const std::string& what);

}  // namespace whence
