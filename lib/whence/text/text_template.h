#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace whence {

/// A text with columns in braces, "Review: {text}"; {{ and }} stand for braces.
class TextTemplate {
 public:
  /// {mask} stands for `mask` where there is one. Throws InvalidArgument, naming `what`, where a brace has no end, a
  /// column is none of `columns`, or no column is named.
  TextTemplate(const std::string& pattern, const std::string& what, const std::vector<std::string>& columns,
               const std::optional<std::string>& mask = {});

  bool masks() const { return masks_; }
  /// The number of each column in `columns`, in the order of the text.
  std::vector<std::size_t> order() const;
  /// With a cell for each of `columns`; `begins` gets the byte where each of order() begins.
  std::string fill(const std::vector<std::string>& cells, std::vector<std::size_t>* begins = nullptr) const;

 private:
  struct Part {
    std::string literal;
    std::size_t column;
  };
  std::string end_;
  std::vector<Part> parts_;
  bool masks_ = false;
};

}  // namespace whence
