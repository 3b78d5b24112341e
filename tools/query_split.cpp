#include "query_split.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace whence::cli {

std::optional<std::string> query_split(const CommandLine& line, const Pipeline& pipeline) {
  if (line.has("queries")) {
    return line.text("queries");
  }
  const auto names = pipeline.query_splits();
  return names.size() == 1 ? std::optional(names.front()) : std::nullopt;
}

std::string required_query_split(const CommandLine& line, const Pipeline& pipeline, const std::string& instead) {
  if (auto split = query_split(line, pipeline)) {
    return *std::move(split);
  }
  const auto names = pipeline.query_splits();
  const auto path = pipeline.path().string();
  throw UsageError(
      names.empty()
          ? fmt::format("{} has no queries: add a table [queries.test] with data = {{ … }}{}", path, instead)
          : fmt::format("--queries is missing: {} has {}: --queries {}", path, fmt::join(names, ", "), names.front()));
}

}  // namespace whence::cli
