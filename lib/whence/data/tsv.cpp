#include <algorithm>

#include "whence/data/detail/table.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

void take_tsv_row(const fs::path&, detail::TextCursor& cursor, std::vector<std::string>& cells) {
  cells.clear();
  auto line = cursor.rest.substr(0, cursor.rest.find('\n'));
  cursor.rest.remove_prefix(std::min(cursor.rest.size(), line.size() + 1));
  ++cursor.line;
  if (line.ends_with('\r')) {
    line.remove_suffix(1);
  }
  auto tab = line.find('\t');
  for (; tab != line.npos; tab = line.find('\t')) {
    cells.emplace_back(line.substr(0, tab));
    line.remove_prefix(tab + 1);
  }
  cells.emplace_back(line);
}

class TsvFormat : public DataFormat {
 public:
  std::vector<OptionInfo> keys() const override { return detail::describe_keys<detail::TableKeys>(); }
  bool has_columns() const override { return true; }
  SourceExamples read(const nlohmann::json& table, const fs::path& folder, TargetKind wanted) const override {
    return detail::read_table(table, "tsv", folder, wanted, detail::tsv_rows);
  }
};

}  // namespace

detail::TakeRow detail::tsv_rows(std::string_view) { return take_tsv_row; }

WHENCE_FORMAT(tsv, TsvFormat)

}  // namespace whence
