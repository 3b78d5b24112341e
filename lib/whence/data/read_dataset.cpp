#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>
#include <unordered_map>

#include "whence/core/error.h"
#include "whence/data/dataset.h"
#include "whence/data/detail/bytes.h"
#include "whence/data/detail/keys.h"
#include "whence/data/detail/texts.h"
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

Kept number_classes(const SourceExamples& source, Numbering& numbering, std::int64_t skip, std::int64_t limit) {
  Kept kept;
  std::int64_t met = 0;
  const auto labels = source.labels.contiguous();
  for (std::int64_t row = 0; row < labels.size(0); ++row) {
    const auto label = labels.const_data_ptr<std::int64_t>()[row];
    const auto number = numbering.number(row, label);  // past the limit too: a bad label is damage anywhere
    if (number && ++met > skip && static_cast<std::int64_t>(kept.rows.size()) < limit) {
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

std::int64_t count_examples(const SourceExamples& source) {
  if (source.inputs.defined()) {
    return source.inputs.size(0);
  }
  return source.tokens.tokens.defined() ? source.tokens.begins.size(0)
                                        : static_cast<std::int64_t>(source.records.rows.size());
}

void check_counts(const SourceExamples& source) {
  const auto inputs = count_examples(source);
  if (inputs == 0 || (source.inputs.defined() && source.inputs.numel() == 0)) {
    throw DataError(fmt::format("{}: no examples", source.inputs_from));
  }
  if (!source.labels.defined() && !source.values.defined()) {
    return;
  }
  const auto targets = (source.labels.defined() ? source.labels : source.values).size(0);
  if (inputs != targets) {
    throw DataError(
        fmt::format("{}: {} inputs, but {} targets in {}", source.inputs_from, inputs, targets, source.targets_from));
  }
}

void check_finite_rows(const at::Tensor& x, const at::Tensor& ids, std::string_view what, const std::string& file) {
  if (const auto row = detail::first_nonfinite_row(x); row >= 0) {
    throw DataError(fmt::format("{}: the {} of example {} hold NaN or infinity, expected finite numbers", file, what,
                                ids[row].item<std::int64_t>()));
  }
}

std::string format_of(const nlohmann::json& table) {
  if (!table.is_object() || !table.contains("format") || !table["format"].is_string()) {
    std::vector<std::string_view> formats;
    for (const auto& method : methods<DataFormat>()) {
      formats.push_back(method.name);
    }
    throw InvalidArgument(fmt::format("data: key format is missing, expected one of {}", fmt::join(formats, ", ")));
  }
  return table["format"].get<std::string>();
}

/// What one table describes, and how many examples its source has before any filter.
std::pair<Dataset::Contents, std::int64_t> read_table(const nlohmann::json& table, const std::filesystem::path& folder,
                                                      TargetKind wanted, const std::vector<std::string>& known_classes,
                                                      const TextReading* reading) {
  const auto format = format_of(table);
  auto asked = table;
  if (reading != nullptr && (format == "csv" || format == "tsv") && !detail::asks_for_texts(table)) {
    asked["text"] = "text";  // a model of texts reads texts
  }
  const auto source = create<DataFormat>(format)->read(asked, folder, wanted);
  const auto keys = detail::fill_keys<detail::CommonKeys>(table, format);
  check_counts(source);
  if (source.inputs.defined() != (reading == nullptr)) {
    throw InvalidArgument(fmt::format("{}: {} holds {}, but the model takes {}", format, source.inputs_from,
                                      source.inputs.defined() ? "numbers" : "texts",
                                      source.inputs.defined() ? "texts" : "numbers"));
  }

  Dataset::Contents contents;
  contents.scale = source.scale;
  contents.files = source.files;
  contents.origins =
      source.origins.empty() ? std::vector{Origin{0, source.inputs_from, source.records.blocks}} : source.origins;
  std::vector<std::int64_t> rows;
  if (source.labels.defined()) {
    Numbering numbering(source, format, keys.classes, known_classes);
    auto kept = number_classes(source, numbering, keys.skip, keys.limit);
    numbering.check_all_met(format);
    rows = std::move(kept.rows);
    contents.targets = at::tensor(kept.numbers, at::kLong);
    contents.classes = numbering.names();
  } else if (!keys.classes.empty()) {
    throw InvalidArgument(fmt::format("{}: key classes: the targets of {} are {}", format, source.targets_from,
                                      source.values.defined() ? "values" : "tokens"));
  } else if (!known_classes.empty()) {
    throw DataError(fmt::format("{}: targets are values, expected classes {}", source.targets_from,
                                fmt::join(known_classes, ", ")));
  } else {
    const auto first = source.records.blocks ? 0 : std::min(keys.skip, count_examples(source));
    rows.resize(static_cast<std::size_t>(std::min(keys.limit, count_examples(source) - first)));
    std::iota(rows.begin(), rows.end(), first);
  }
  auto count = count_examples(source);
  if (rows.empty()) {
    throw InvalidArgument(fmt::format("{}: key skip = {} leaves none of the {} examples of {}", format, keys.skip,
                                      count, source.inputs_from));
  }
  if (source.inputs.defined()) {
    contents.ids = at::tensor(rows, at::kLong);
    if (source.values.defined()) {
      contents.targets = pick(source.values, contents.ids);
    }
    contents.inputs = pick(source.inputs, contents.ids);
    check_finite_rows(contents.inputs, contents.ids, "inputs", source.inputs_from);
    check_finite_rows(contents.targets, contents.ids, "targets", source.targets_from);
    return {std::move(contents), count};
  }
  if (source.tokens.tokens.defined()) {
    contents.ids = at::tensor(rows, at::kLong);
    contents.texts = detail::taken(source, contents.ids, *reading, wanted);
  } else {
    contents.texts = detail::tokenize(source, table, format, *reading, wanted, contents.classes,
                                      source.records.blocks ? keys.skip : 0, keys.limit, rows);
    contents.ids = at::tensor(rows, at::kLong);
    count = std::max(count, contents.ids.max().item<std::int64_t>() + 1);
  }
  contents.predicted = wanted;
  return {std::move(contents), count};
}

/// The texts of several tables, one table after the other.
Dataset::Contents joined(std::vector<std::pair<Dataset::Contents, std::int64_t>> parts) {
  auto out = std::move(parts.front().first);
  auto ids_before = parts.front().second;
  for (std::size_t i = 1; i < parts.size(); ++i) {
    auto& part = parts[i].first;
    if (part.classes != out.classes || part.texts.asked.defined() != out.texts.asked.defined()) {
      throw InvalidArgument("data: several tables must have the same classes and label words: list them in `classes`");
    }
    const auto cat = [](at::Tensor& to, const at::Tensor& more) {
      if (to.defined()) {
        to = at::cat({to, more});
      }
    };
    const auto tokens_before = out.texts.tokens.size(0);
    if (out.texts.types.defined() || part.texts.types.defined()) {
      for (auto* texts : {&out.texts, &part.texts}) {
        if (!texts->types.defined()) {
          texts->types = at::zeros({texts->tokens.size(0)}, at::kByte);
        }
      }
      cat(out.texts.types, part.texts.types);
    }
    cat(out.ids, part.ids + ids_before);
    cat(out.targets, part.targets);
    cat(out.texts.begins, part.texts.begins + tokens_before);
    cat(out.texts.lengths, part.texts.lengths);
    cat(out.texts.asked, part.texts.asked);
    cat(out.texts.targets, part.texts.targets);
    cat(out.texts.tokens, part.texts.tokens);
    out.texts.cut += part.texts.cut;
    out.files.insert(out.files.end(), part.files.begin(), part.files.end());
    for (auto origin : part.origins) {
      origin.first_id += ids_before;
      out.origins.push_back(std::move(origin));
    }
    ids_before += parts[i].second;
  }
  return out;
}

}  // namespace

Dataset read_dataset(const nlohmann::json& table, const std::filesystem::path& folder, TargetKind wanted,
                     const std::vector<std::string>& known_classes, const TextReading* reading) {
  if (!table.is_array()) {
    return Dataset(read_table(table, folder, wanted, known_classes, reading).first);
  }
  if (reading == nullptr || table.empty()) {
    throw InvalidArgument(table.empty() ? "data: the list of tables is empty"
                                        : "data: a list of tables is for models of texts");
  }
  std::vector<std::pair<Dataset::Contents, std::int64_t>> parts;
  auto classes = known_classes;
  for (const auto& one : table) {
    parts.push_back(read_table(one, folder, wanted, classes, reading));
    classes = parts.front().first.classes;
  }
  return Dataset(joined(std::move(parts)));
}

}  // namespace whence
