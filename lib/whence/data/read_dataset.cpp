#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <unordered_map>

#include "whence/core/error.h"
#include "whence/data/dataset.h"
#include "whence/data/detail/bytes.h"
#include "whence/data/detail/keys.h"
#include "whence/data/format.h"

namespace whence {
namespace {

constexpr std::int64_t kMostClasses = 1 << 20;  // of labels taken as they are: a larger one is damage

/// Labels as they are called where nothing numbers them: 0 to the highest, or the source's own names.
std::vector<std::string> label_names(const SourceExamples& source) {
  if (!source.label_names.empty()) {
    return source.label_names;
  }
  const auto highest = source.labels.max().item<std::int64_t>();
  if (highest >= kMostClasses) {
    throw DataError(fmt::format("{}: example {} has label {}, expected less than {} unless `classes` lists it",
                                source.targets_from, source.labels.argmax().item<std::int64_t>(), highest,
                                kMostClasses));
  }
  std::vector<std::string> names;
  for (std::int64_t label = 0; label <= highest; ++label) {
    names.push_back(std::to_string(label));
  }
  return names;
}

/// Which class number each label has: its place in `known`, else in `classes`, else in the source's labels.
class Numbering {
 public:
  Numbering(const SourceExamples& source, std::string_view format, const std::vector<std::string>& classes,
            const std::vector<std::string>& known)
      : source_(source),
        names_(!known.empty() ? known : (!classes.empty() ? classes : label_names(source))),
        expected_(known.empty() ? ">= 0" : fmt::format("one of {}", fmt::join(known, ", "))),
        filter_(classes.begin(), classes.end()) {
    if (filter_.size() != classes.size()) {
      throw InvalidArgument(fmt::format("{}: key classes = [{}] names one twice", format, fmt::join(classes, ", ")));
    }
    for (std::size_t i = 0; i < names_.size(); ++i) {
      numbers_.emplace(names_[i], static_cast<std::int64_t>(i));
    }
    for (const auto& name : classes) {
      if (numbers_.count(name) == 0) {
        throw InvalidArgument(fmt::format("{}: key classes: {}", format, unknown_name("class", name, names_)));
      }
    }
  }

  const std::vector<std::string>& names() const { return names_; }

  /// Nothing when `classes` leaves the example out.
  std::optional<std::int64_t> number(std::int64_t example, std::int64_t label) {
    const auto [seen, fresh] = seen_.try_emplace(label);
    if (!fresh) {
      return seen->second;
    }
    const auto name =
        source_.label_names.empty() ? std::to_string(label) : source_.label_names[static_cast<std::size_t>(label)];
    const auto found = numbers_.find(name);
    if (label >= 0 && !filter_.empty() && filter_.count(name) == 0) {
      return std::nullopt;
    }
    if (found == numbers_.end()) {
      throw DataError(
          fmt::format("{}: example {} has label {}, expected {}", source_.targets_from, example, name, expected_));
    }
    met_.insert(name);
    return seen->second = found->second;
  }

  /// Throws InvalidArgument when `classes` lists one that number() has not met.
  void check_all_met(std::string_view format) const {
    for (const auto& name : filter_) {
      if (met_.count(name) == 0) {
        throw InvalidArgument(
            fmt::format("{}: key classes: no example of {} has label {}", format, source_.targets_from, name));
      }
    }
  }

 private:
  const SourceExamples& source_;
  std::vector<std::string> names_;
  std::string expected_;
  std::set<std::string> filter_, met_;
  std::unordered_map<std::string, std::int64_t> numbers_;
  std::unordered_map<std::int64_t, std::optional<std::int64_t>> seen_;
};

/// The first `limit` of the examples that `classes` keeps, as rows of the source, and their class numbers.
struct Kept {
  std::vector<std::int64_t> rows, numbers;
};

Kept number_classes(const SourceExamples& source, Numbering& numbering, std::int64_t limit) {
  Kept kept;
  const auto labels = source.labels.contiguous();
  for (std::int64_t row = 0; row < labels.size(0); ++row) {
    const auto label = labels.const_data_ptr<std::int64_t>()[row];
    const auto number = numbering.number(row, label);  // past the limit too: a bad label is damage anywhere
    if (number && static_cast<std::int64_t>(kept.rows.size()) < limit) {
      kept.rows.push_back(row);
      kept.numbers.push_back(*number);
    }
  }
  return kept;
}

/// A view where `rows` are the first ones.
at::Tensor pick(const at::Tensor& x, const at::Tensor& rows) {
  const auto count = rows.size(0);
  return rows[count - 1].item<std::int64_t>() == count - 1 ? x.narrow(0, 0, count) : x.index_select(0, rows);
}

void check_counts(const SourceExamples& source) {
  const auto inputs = source.inputs.size(0);
  const auto targets = (source.labels.defined() ? source.labels : source.values).size(0);
  if (inputs != targets) {
    throw DataError(
        fmt::format("{}: {} inputs, but {} targets in {}", source.inputs_from, inputs, targets, source.targets_from));
  }
  if (inputs == 0 || source.inputs.numel() == 0) {
    throw DataError(fmt::format("{}: no examples", source.inputs_from));
  }
}

void check_finite_rows(const at::Tensor& x, const at::Tensor& ids, std::string_view what, const std::string& file) {
  if (const auto row = detail::first_nonfinite_row(x); row >= 0) {
    throw DataError(fmt::format("{}: the {} of example {} hold NaN or infinity, expected finite numbers", file, what,
                                ids[row].item<std::int64_t>()));
  }
}

}  // namespace

Dataset read_dataset(const nlohmann::json& table, const std::filesystem::path& folder, TargetKind wanted,
                     const std::vector<std::string>& known_classes) {
  if (!table.is_object() || !table.contains("format") || !table["format"].is_string()) {
    std::vector<std::string_view> formats;
    for (const auto& method : methods<DataFormat>()) {
      formats.push_back(method.name);
    }
    throw InvalidArgument(fmt::format("data: key format is missing, expected one of {}", fmt::join(formats, ", ")));
  }
  const auto format = table["format"].get<std::string>();
  const auto source = create<DataFormat>(format)->read(table, folder, wanted);
  const auto keys = detail::fill_keys<detail::CommonKeys>(table, format);
  check_counts(source);

  Dataset::Contents contents;
  contents.scale = source.scale;
  contents.files = source.files;
  if (source.labels.defined()) {
    Numbering numbering(source, format, keys.classes, known_classes);
    const auto kept = number_classes(source, numbering, keys.limit);
    numbering.check_all_met(format);
    contents.ids = at::tensor(kept.rows, at::kLong);
    contents.targets = at::tensor(kept.numbers, at::kLong);
    contents.classes = numbering.names();
  } else if (!keys.classes.empty()) {
    throw InvalidArgument(fmt::format("{}: key classes: the targets of {} are values", format, source.targets_from));
  } else if (!known_classes.empty()) {
    throw DataError(fmt::format("{}: targets are values, expected classes {}", source.targets_from,
                                fmt::join(known_classes, ", ")));
  } else {
    contents.ids = at::arange(std::min(keys.limit, source.values.size(0)), at::kLong);
    contents.targets = pick(source.values, contents.ids);
  }
  contents.inputs = pick(source.inputs, contents.ids);
  check_finite_rows(contents.inputs, contents.ids, "inputs", source.inputs_from);
  check_finite_rows(contents.targets, contents.ids, "targets", source.targets_from);
  return Dataset(std::move(contents));
}

}  // namespace whence
