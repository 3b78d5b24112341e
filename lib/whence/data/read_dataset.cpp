#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "whence/core/error.h"
#include "whence/core/quoted.h"
#include "whence/data/dataset.h"
#include "whence/data/detail/bytes.h"
#include "whence/data/detail/channels.h"
#include "whence/data/detail/keys.h"
#include "whence/data/detail/table.h"
#include "whence/data/detail/targets.h"
#include "whence/data/detail/texts.h"
#include "whence/data/format.h"

namespace whence {
namespace {

/// A view where `rows` are the first ones, in order.
at::Tensor pick(const at::Tensor& x, const at::Tensor& rows) {
  const auto count = rows.size(0);
  return at::equal(rows, at::arange(count, at::kLong)) ? x.narrow(0, 0, count) : x.index_select(0, rows);
}

std::int64_t count_examples(const SourceExamples& source) {
  if (source.inputs.defined() || source.table) {
    return source.table ? source.table->rows() : source.inputs.size(0);
  }
  return source.tokens.tokens.defined() ? source.tokens.begins.size(0)
                                        : static_cast<std::int64_t>(source.records.rows.size());
}

void check_counts(const SourceExamples& source) {
  const auto inputs = count_examples(source);
  if (inputs == 0 || (source.inputs.defined() && source.inputs.numel() == 0)) {
    throw DataError(
        fmt::format("{}: no examples{}", source.inputs_from,
                    source.table && source.table->rows() == 0 ? ": no row follows the names of the columns" : ""));
  }
  if (source.label_column.empty() && !source.labels.defined() && !source.values.defined()) {
    return;
  }
  const auto targets = source.label_column.empty() ? (source.labels.defined() ? source.labels : source.values).size(0)
                                                   : static_cast<std::int64_t>(source.label_cells.size());
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

/// The columns of a table that are targets and no inputs.
std::vector<std::string> label_columns(const SourceExamples& source) {
  return source.value_columns.empty() ? std::vector{source.label_column} : source.value_columns;
}

/// Throws where a table's inputs do not fit the model, as check_shapes() does: all its rows, where labels do not yet
/// say which are kept.
void check_width(const SourceExamples& source, const nlohmann::json& table, const std::string& format,
                 const DataReading& reading) {
  if (!source.table || !reading.check_shapes) {
    return;
  }
  auto encoding = reading.table;
  if (!encoding) {
    std::vector<std::int64_t> all(static_cast<std::size_t>(source.table->rows()));
    std::iota(all.begin(), all.end(), 0);
    std::vector<std::string> notes;
    try {
      encoding = std::make_shared<const TableEncoding>(
          detail::fit_encoding(*source.table, all, label_columns(source), table, format, reading.standardize, notes));
    } catch (const Error&) {
      return;  // the labels' fault is told
    }
  }
  reading.check_shapes({{"", {encoding->width()}}}, source.inputs_from);
}

std::string format_of(const nlohmann::json& table) {
  if (!table.is_object() || !table.contains("format") || !table["format"].is_string()) {
    throw InvalidArgument(
        fmt::format("data: key format is missing, expected one of {}", fmt::join(method_names<DataFormat>(), ", ")));
  }
  return table["format"].get<std::string>();
}

/// Words stand for the classes in the order in which the same table lists these; where it does not, in that of the
/// stage's own, or of labels that are numbers. Returns them in the order of `classes`, which labels meet by `places`.
std::vector<std::string> ordered_words(const std::vector<std::string>& words, const detail::CommonKeys& keys,
                                       const std::vector<std::string>& classes,
                                       const std::map<std::string, std::int64_t>& places, const std::string& format,
                                       bool settled) {
  if (words.size() != classes.size()) {
    return words;  // which is refused with the count
  }
  if (keys.classes.size() == classes.size()) {
    std::vector<std::string> out(words.size());
    for (std::size_t k = 0; k < words.size(); ++k) {
      out.at(static_cast<std::size_t>(places.at(keys.classes[k]))) = words[k];
    }
    return out;
  }
  const bool numbers =
      std::all_of(classes.begin(), classes.end(), [](const auto& name) { return detail::number_in(name).has_value(); });
  if (!settled && !numbers) {
    throw InvalidArgument(fmt::format(
        "{}: key label-words: which word is for which label? list the labels in the words' order: classes = "
        "{}",
        format, toml_text(classes)));
  }
  return words;
}

/// Of `rows` of a source those that the key `rows` lists, in its order, as positions in `rows`. Throws InvalidArgument
/// where one is not there, or listed twice.
std::vector<std::int64_t> listed_rows(const std::vector<double>& listed, const std::vector<std::int64_t>& rows,
                                      std::int64_t count, const SourceExamples& source, const std::string& format) {
  std::map<std::int64_t, std::int64_t> places;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    places[rows[i]] = static_cast<std::int64_t>(i);
  }
  std::vector<std::int64_t> out;
  for (const double row : listed) {
    const auto where = fmt::format("{}: key rows: row {:g} of {}", format, row, source.inputs_from);
    if (row != std::floor(row) || row < 0 || row >= static_cast<double>(count)) {
      throw InvalidArgument(fmt::format("{}, expected a whole number from 0 to {}", where, count - 1));
    }
    const auto place = places.find(static_cast<std::int64_t>(row));
    if (place == places.end()) {
      throw InvalidArgument(where + " is left out by classes, drop-labels, skip or limit, or is listed twice");
    }
    out.push_back(place->second);
    places.erase(place);
  }
  return out;
}

/// What one table describes, and how many examples its source has before any filter.
std::pair<Dataset::Contents, std::int64_t> read_table(const nlohmann::json& table, const std::filesystem::path& folder,
                                                      DataReading reading) {
  const auto format = format_of(table);
  check_data_keys(table);
  const auto reader = create<DataFormat>(format);
  auto asked = table;
  if (reading.texts != nullptr && !detail::asks_for_texts(table) && reader->has_columns()) {
    asked["text"] = "text";  // a model of texts reads texts
  }
  if (reading.table && !table.contains("label") && !table.contains("labels") && reading.texts == nullptr &&
      reader->has_columns()) {
    asked["label"] = reading.table->label;
    if (!reading.table->labels.empty()) {
      asked.erase("label");
      asked["labels"] = reading.table->labels;
    }
  }
  if (reading.table && reader->has_loose_rows()) {
    asked["input"] = nlohmann::json::array();
    for (const auto& column : reading.table->columns) {
      asked["input"].push_back(column.name);
    }
  }
  const auto source = reader->read(asked, folder, reading.wanted);
  const auto keys = detail::read_keys<detail::CommonKeys>(table, format);
  check_counts(source);
  const bool numbers = source.inputs.defined() || source.table;
  if (numbers != (reading.texts == nullptr)) {
    throw InvalidArgument(fmt::format("{}: {} holds {}, but the model takes {}", format, source.inputs_from,
                                      numbers ? "numbers" : "texts", numbers ? "texts" : "numbers"));
  }
  const auto check_shapes = [&](std::vector<InputShape> shapes) {
    if (reading.check_shapes) {
      reading.check_shapes(shapes, source.inputs_from);
    }
  };
  if (source.inputs.defined()) {
    check_shapes(source.arguments.empty() ? std::vector{InputShape{"", source.inputs.sizes().slice(1).vec()}}
                                          : source.arguments);
  }
  const auto words =
      numbers ? std::vector<std::string>{} : detail::read_keys<detail::TextKeys>(table, format).label_words;
  const auto is_number = [](const std::string& cell) { return detail::number_in(cell).has_value(); };
  if (!words.empty() && keys.classes.empty() && reading.head.outputs == 0 &&
      std::all_of(source.label_cells.begin(), source.label_cells.end(), is_number)) {
    reading.head = {static_cast<std::int64_t>(words.size()), {}, /*sorted=*/true, "label-words"};
  }

  Dataset::Contents contents;
  contents.scale = source.scale;
  contents.files = source.files;
  contents.origins =
      source.origins.empty() ? std::vector{Origin{0, source.inputs_from, source.records.blocks}} : source.origins;
  std::vector<std::int64_t> rows;
  std::map<std::string, std::int64_t> class_places;  // of labels
  auto count = count_examples(source);
  if (source.labels.defined() || source.values.defined() || !source.label_column.empty()) {
    detail::Targets targets;
    try {
      targets = detail::find_targets(source, keys, format, reading);
    } catch (const Error&) {
      check_width(source, table, format, reading);
      throw;
    }
    rows = std::move(targets.rows);
    contents.targets = targets.values.defined() ? targets.values : at::tensor(targets.numbers, at::kLong);
    contents.classes = std::move(targets.classes);
    class_places = std::move(targets.places);
    if (!targets.note.empty()) {
      contents.notes.push_back(std::move(targets.note));
    }
  } else if (!keys.classes.empty() || !keys.drop_labels.empty()) {
    throw InvalidArgument(fmt::format("{}: key {}: the targets of {} are tokens", format,
                                      keys.classes.empty() ? "drop-labels" : "classes", source.targets_from));
  } else {
    const auto first = source.records.blocks ? 0 : std::min(keys.skip, count);
    rows.resize(static_cast<std::size_t>(std::min(keys.limit, count - first)));
    std::iota(rows.begin(), rows.end(), first);
  }
  if (rows.empty()) {
    throw InvalidArgument(fmt::format("{}: key {} leaves none of the {} examples of {}", format,
                                      keys.skip > 0 ? fmt::format("skip = {}", keys.skip) : "drop-labels", count,
                                      source.inputs_from));
  }
  if (!keys.rows.empty()) {
    if (source.records.blocks) {
      throw InvalidArgument(fmt::format("{}: key rows: {} is one long text, which has none: use skip and limit", format,
                                        source.inputs_from));
    }
    const auto places = listed_rows(keys.rows, rows, count, source, format);
    std::vector<std::int64_t> kept;
    for (const auto place : places) {
      kept.push_back(rows[static_cast<std::size_t>(place)]);
    }
    rows = std::move(kept);
    if (contents.targets.defined()) {
      contents.targets = contents.targets.index_select(0, at::tensor(places, at::kLong));
    }
  }
  if (numbers) {
    contents.ids = at::tensor(rows, at::kLong);
    if (source.table) {
      contents.table = reading.table;
      if (!contents.table) {
        contents.table = std::make_shared<const TableEncoding>(detail::fit_encoding(
            *source.table, rows, label_columns(source), table, format, reading.standardize, contents.notes));
      }
      check_shapes({{"", {contents.table->width()}}});
      contents.inputs = detail::encode(*contents.table, *source.table, rows, table, format);
    } else {
      contents.inputs = pick(source.inputs, contents.ids);
      if (table.contains("mean") || table.contains("std")) {
        detail::read_channels(table, format, contents);
      }
    }
    check_finite_rows(contents.inputs, contents.ids, "inputs", source.inputs_from);
    check_finite_rows(contents.targets, contents.ids, "targets", source.targets_from);
    return {std::move(contents), count};
  }
  if (contents.targets.defined()) {
    check_finite_rows(contents.targets, at::tensor(rows, at::kLong), "targets", source.targets_from);
  }
  if (source.tokens.tokens.defined()) {
    contents.ids = at::tensor(rows, at::kLong);
    contents.texts = detail::taken(source, contents.ids, *reading.texts, reading.wanted);
  } else {
    if (!words.empty()) {
      asked["label-words"] =
          ordered_words(words, keys, contents.classes, class_places, format, !reading.known_classes.empty());
    }
    bool split = false;
    contents.texts = detail::tokenize(source, asked, format, *reading.texts, reading.wanted, contents.classes,
                                      source.records.blocks ? keys.skip : 0, keys.limit, rows, split);
    contents.origins.front().blocks |= split;
    contents.ids = at::tensor(rows, at::kLong);
    count = std::max(count, contents.ids.max().item<std::int64_t>() + 1);
  }
  contents.predicted = reading.wanted;
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
    if (out.targets.defined() && part.targets.defined() &&
        out.targets.sizes().slice(1) != part.targets.sizes().slice(1)) {
      throw InvalidArgument("data: several tables must have as many values an example: list the columns in `labels`");
    }
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

void check_data_keys(const nlohmann::json& table) {
  if (table.is_array()) {
    std::for_each(table.begin(), table.end(), check_data_keys);
    return;
  }
  const auto format = format_of(table);
  std::vector<std::string> known;
  for (const auto& info : create<DataFormat>(format)->keys()) {
    known.push_back(info.name);
  }
  for (const auto& [key, value] : table.items()) {
    if (key != "format" && std::find(known.begin(), known.end(), key) == known.end()) {
      throw InvalidArgument(fmt::format("{}: {}", format, unknown_name("key", key, known)));
    }
  }
}

Dataset read_dataset(const nlohmann::json& table, const std::filesystem::path& folder, const DataReading& reading) {
  if (!table.is_array()) {
    return Dataset(read_table(table, folder, reading).first);
  }
  if (reading.texts == nullptr || table.empty()) {
    throw InvalidArgument(table.empty() ? "data: the list of tables is empty"
                                        : "data: a list of tables is for models of texts");
  }
  std::vector<std::pair<Dataset::Contents, std::int64_t>> parts;
  auto later = reading;
  for (const auto& one : table) {
    parts.push_back(read_table(one, folder, later));
    later.known_classes = parts.front().first.classes;
  }
  return Dataset(joined(std::move(parts)));
}

Dataset read_dataset(const nlohmann::json& table, const std::filesystem::path& folder, TargetKind wanted,
                     const std::vector<std::string>& known_classes, const TextReading* texts) {
  DataReading reading;
  reading.wanted = wanted;
  reading.known_classes = known_classes;
  reading.texts = texts;
  return read_dataset(table, folder, reading);
}

}  // namespace whence
