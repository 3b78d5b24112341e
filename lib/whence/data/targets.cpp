#include "whence/data/detail/targets.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <tuple>
#include <unordered_map>

#include "whence/core/error.h"
#include "whence/core/quoted.h"
#include "whence/data/detail/cells.h"

namespace whence::detail {
namespace {

constexpr std::size_t kManyClasses = 1000;  // more, and each in few examples: numbers rather than classes

std::int64_t count_targets(const SourceExamples& source) {
  return source.labels.defined() ? source.labels.size(0) : static_cast<std::int64_t>(source.label_cells.size());
}

/// `FILE: line 3, column "label"` or `FILE: example 2`.
std::string place_of(const SourceExamples& source, std::int64_t example) {
  const auto i = static_cast<std::size_t>(example);
  if (source.label_column.empty()) {
    return fmt::format("{}: example {}", source.targets_from, example);
  }
  return fmt::format("{}: line {}, column \"{}\"", source.targets_from,
                     source.table ? source.table->line(example) : source.records.lines[i], source.label_column);
}

bool is_whole(const std::string& name) {
  return !name.empty() && name.find_first_not_of("0123456789", name[0] == '-' ? 1 : 0) == name.npos && name != "-";
}

/// As a pipeline file lists labels: whole numbers of 64 bits as they are, all else in quotes.
std::string label_list(const std::vector<std::string>& names) {
  constexpr std::size_t kDigits = 18;  // which surely are of 64 bits
  std::vector<std::string> items;
  for (const auto& name : names) {
    const bool plain = is_whole(name) && name.size() <= kDigits && canonical_label(name) == name;
    items.push_back(plain ? name : toml_text(name));
  }
  return fmt::format("[{}]", fmt::join(items, ", "));
}

/// Numbers by value, whole ones of any length too, before words by their bytes.
bool in_order(const std::string& a, const std::string& b) {
  const auto x = number_in(a), y = number_in(b);
  if (!x || !y || *x != *y) {
    return x && y ? *x < *y : (x.has_value() != y.has_value() ? x.has_value() : a < b);
  }
  const bool a_is_whole = is_whole(a), b_is_whole = is_whole(b);  // with one float64
  if (a_is_whole && b_is_whole) {
    const auto& [low, high] = *x < 0 ? std::tie(b, a) : std::tie(a, b);
    return std::pair(low.size(), low) < std::pair(high.size(), high);
  }
  return a_is_whole != b_is_whole ? a_is_whole : a < b;
}

/// What each example's label is called; "" where it is dropped.
class LabelNames {
 public:
  LabelNames(const SourceExamples& source, const CommonKeys& keys, const std::vector<std::string>& known)
      : source_(source), known_(known.begin(), known.end()) {
    known_.insert(keys.classes.begin(), keys.classes.end());
    for (const auto& label : keys.drop_labels) {
      drops_.insert({label, canonical_label(label)});
    }
    if (source.labels.defined()) {
      read_numbers();
    } else {
      read_cells();
    }
    std::sort(distinct_.begin(), distinct_.end(), in_order);
  }

  /// Of example i; empty: dropped.
  const std::string& name(std::int64_t i) const { return *names_[static_cast<std::size_t>(i)]; }
  /// The names of the examples that are not dropped, in order.
  const std::vector<std::string>& distinct() const { return distinct_; }

 private:
  bool dropped(const std::string& name) const { return drops_.count(name) != 0; }

  const std::string* intern(const std::string& name) {
    const auto [place, fresh] = pool_.insert(name);
    if (fresh && !name.empty()) {
      distinct_.push_back(name);
    }
    return &*place;
  }

  void read_numbers() {
    std::unordered_map<std::int64_t, const std::string*> seen;
    const auto labels = source_.labels.contiguous();
    for (std::int64_t i = 0; i < labels.size(0); ++i) {
      const auto label = labels.const_data_ptr<std::int64_t>()[i];
      const auto [found, fresh] = seen.try_emplace(label, nullptr);
      if (fresh) {
        const auto name = std::to_string(label);
        found->second = intern(dropped(name) ? std::string() : name);
      }
      names_.push_back(found->second);
    }
  }

  void read_cells() {
    const auto& cells = source_.label_cells;
    std::vector<bool> drop(cells.size());
    bool numbers = true;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      drop[i] = dropped(cells[i]) || (number_in(cells[i]) && dropped(canonical_label(cells[i])));
      if (!drop[i] && is_missing(cells[i]) && known_.count(cells[i]) == 0) {
        throw DataError(fmt::format("{}: no label{}; drop-labels = [{}] leaves such rows out",
                                    place_of(source_, static_cast<std::int64_t>(i)),
                                    cells[i].empty() ? "" : fmt::format(" (\"{}\")", cells[i]), toml_text(cells[i])));
      }
      numbers = numbers && (drop[i] || number_in(cells[i]));
    }
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const bool as_it_is = !numbers || known_.count(cells[i]) != 0;
      names_.push_back(intern(drop[i] ? std::string() : (as_it_is ? cells[i] : canonical_label(cells[i]))));
    }
  }

  const SourceExamples& source_;
  std::set<std::string> known_, drops_;
  std::set<std::string> pool_;
  std::vector<const std::string*> names_;
  std::vector<std::string> distinct_;
};

/// Classes by number, and those that are kept.
struct Numbering {
  std::vector<std::string> classes;
  std::map<std::string, std::int64_t> numbers;  // of labels
  std::set<std::string> kept;                   // of labels; empty: all
  bool some = false;                            // of those that are kept may be all that there are
  std::string expected;                         // of an unknown label
  std::string note;                             // what was decided, for people; empty: nothing to tell
};

std::string shown(const std::vector<std::string>& names) {
  constexpr std::size_t kMost = 12;
  return names.size() <= kMost
             ? fmt::format("{}", fmt::join(names, ", "))
             : fmt::format("{}, … ({} in all)", fmt::join(names.begin(), names.begin() + kMost, ", "), names.size());
}

bool is_among(const std::string& name, const std::vector<std::string>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// Whether a label is the number of one of so many outputs.
bool is_place(const std::string& label, std::int64_t outputs) {
  constexpr std::size_t kDigits = 9;
  return is_whole(label) && label.size() <= kDigits && std::stoll(label) >= 0 && std::stoll(label) < outputs;
}

constexpr std::size_t kFewClasses = 20;  // that a message lists

constexpr const char* kListedAsOutputs =
    ", the numbers of the outputs: classes = […] lists the labels that are the outputs, in their order, and leaves "
    "others out";

/// Settles which class is which.
class Settlement {
 public:
  Settlement(const SourceExamples& source, const CommonKeys& keys, const std::string& format,
             const DataReading& reading, const LabelNames& labels)
      : source_(source),
        labels_(labels),
        format_(format),
        head_(reading.head),
        distinct_(labels.distinct()),
        listed_(keys.classes),
        number_names_(reading.number_names.empty() && !head_.sorted ? head_.names : reading.number_names) {
    if (std::set(listed_.begin(), listed_.end()).size() != listed_.size()) {
      throw InvalidArgument(fmt::format("{}: key classes = {} names one twice", format, label_list(listed_)));
    }
    if (!reading.known_classes.empty()) {
      by_name(reading.known_classes);
    } else if (head_.outputs > 0 || !head_.names.empty()) {
      by_head();
    } else if (!listed_.empty()) {
      by_name(listed_names());
    } else {
      by_value();
    }
  }

  Numbering take() { return std::move(out_); }

 private:
  /// Whether labels are numbers that stand for names, and classes are called by these.
  bool stand_for(const std::vector<std::string>& classes) const {
    const auto stands = [&](const auto& label) { return is_whole(label) && !is_among(label, number_names_); };
    return !number_names_.empty() && !distinct_.empty() && std::all_of(distinct_.begin(), distinct_.end(), stands) &&
           std::all_of(classes.begin(), classes.end(), [&](const auto& name) { return is_among(name, number_names_); });
  }

  /// The key `classes` as names, where labels are numbers that stand for some of these; else as it is.
  std::vector<std::string> listed_names() const {
    if (!stand_for({}) ||
        std::none_of(listed_.begin(), listed_.end(), [&](const auto& name) { return is_among(name, number_names_); })) {
      return listed_;
    }
    auto out = listed_;
    for (auto& name : out) {
      if (is_place(name, std::ssize(number_names_))) {
        name = number_names_[std::stoull(name)];
      } else if (!is_among(name, number_names_)) {
        throw InvalidArgument(fmt::format("{}: key classes: {}", format_, unknown_name("class", name, number_names_)));
      }
    }
    return out;
  }

  /// Classes by their names, or by the numbers that stand for these.
  void by_name(const std::vector<std::string>& names) {
    const bool by_number = stand_for(names);
    const auto number_of = [&](const std::string& name) {
      return std::to_string(std::find(number_names_.begin(), number_names_.end(), name) - number_names_.begin());
    };
    if (const auto other = by_number ? other_place(std::ssize(number_names_), kListedAsOutputs) : ""; !other.empty()) {
      throw DataError(other);
    }
    const bool all = by_number && names == number_names_;  // where two may have one name
    std::vector<std::string> labels;
    for (std::size_t k = 0; k < names.size(); ++k) {
      labels.push_back(all ? std::to_string(k) : by_number ? number_of(names[k]) : names[k]);
      out_.numbers.emplace(labels[k], static_cast<std::int64_t>(k));
    }
    out_.classes = names;
    out_.expected =
        by_number ? fmt::format("one of {}: {}", shown(labels), shown(names)) : fmt::format("one of {}", shown(names));
    for (const auto& name : listed_) {
      const auto label = by_number && is_among(name, number_names_) ? number_of(name) : name;
      if (out_.numbers.count(label) == 0) {
        throw InvalidArgument(fmt::format("{}: key classes: {}", format_, unknown_name("class", name, names)));
      }
      out_.kept.insert(label);
    }
  }

  /// Labels 0, 1, … are the outputs by their places, which have no names.
  void by_place(std::int64_t outputs) {
    for (std::int64_t k = 0; k < outputs; ++k) {
      out_.numbers.emplace(std::to_string(k), k);
      out_.classes.push_back(std::to_string(k));
    }
    out_.kept.insert(listed_.begin(), listed_.end());
    out_.expected = fmt::format("one of 0 to {}", outputs - 1);
  }

  /// Where labels are numbers, and not all those of `outputs` outputs: the first example of another one, and what mends
  /// that. Else empty.
  std::string other_place(std::int64_t outputs, const std::string& remedy) const {
    const auto is_other = [&](const auto& label) { return !is_place(label, outputs); };
    if (!std::all_of(distinct_.begin(), distinct_.end(), is_whole) ||
        std::none_of(distinct_.begin(), distinct_.end(), is_other)) {
      return {};
    }
    const bool from_one =
        distinct_.front() != "0" && !is_other(distinct_.front()) && distinct_.back() == std::to_string(outputs);
    const auto i = first(is_other);
    return fmt::format("{} has label {}, expected one of 0 to {}{}", place_of(source_, i), labels_.name(i), outputs - 1,
                       from_one ? fmt::format(": labels {} to {} seem to count from 1, where outputs count from 0: "
                                              "take 1 from each",
                                              distinct_.front(), outputs)
                                : remedy);
  }

  /// The checkpoint has its outputs already.
  void by_head() {
    const auto outputs = head_.names.empty() ? head_.outputs : std::ssize(head_.names);
    const auto& labels = listed_.empty() ? distinct_ : listed_;
    const bool numbers = std::all_of(labels.begin(), labels.end(), is_whole);
    const bool listed = std::ssize(listed_) == outputs;
    const bool renamed =  // by other words than another program's, or by numbers that are not its outputs'
        !head_.sorted && (numbers ? listed && !head_.are_places(listed_) : listed || listed_.empty()) &&
        std::none_of(labels.begin(), labels.end(), [&](const auto& label) { return is_among(label, head_.names); });
    if (!head_.names.empty() && !renamed) {
      by_name(head_.names);
      out_.expected += ", the classes of " + head_.from;  // which the unknown label's error then says
      return;
    }
    if (listed) {
      out_.some = true;
      return by_name(listed_);
    }
    if (head_.are_places(labels)) {
      return by_place(outputs);
    }
    if (listed_.empty() && std::ssize(distinct_) == outputs && (numbers || head_.sorted)) {
      if (!head_.sorted && distinct_.front() == "1" && distinct_.back() == std::to_string(outputs)) {
        throw ClassesNeeded(fmt::format("{}, or list them as the outputs: classes = {}", other_place(outputs, ""),
                                        label_list(distinct_)),
                            distinct_, outputs);
      }
      by_value();
      if (!head_.sorted) {
        out_.note = fmt::format("{}: the labels {} are taken for the outputs of {} in this order", source_.targets_from,
                                shown(distinct_), head_.from);
      }
      return;
    }
    const auto other = listed_.empty() ? other_place(outputs, "") : "";
    const auto place = other.empty() ? format_ : other;
    if (listed_.empty() && std::ssize(distinct_) > outputs) {
      throw ClassesNeeded(
          fmt::format(
              "{}: {} has {} outputs, and {} has {} labels, {}: classes = […] lists the {} that are the outputs, "
              "in their order, and leaves the examples of the others out",
              place, head_.from, outputs, source_.targets_from, distinct_.size(), shown(distinct_), outputs),
          distinct_, outputs);
    }
    throw ClassesNeeded(
        fmt::format("{}: {} has {} outputs and {}, and {} has the labels {}: list all {} classes in the order of the "
                    "outputs: classes = {}",
                    place, head_.from, outputs,
                    head_.names.empty() ? "does not say which class each is" : "calls them " + shown(head_.names),
                    source_.targets_from, shown(distinct_), outputs,
                    std::ssize(distinct_) == outputs ? label_list(distinct_) : "[…]"),
        distinct_, outputs);
  }

  /// Nothing numbers the classes: the distinct labels, in order.
  void by_value() {
    for (const auto& name : distinct_) {
      if (is_whole(name) && name[0] == '-') {
        throw DataError(
            fmt::format("{}: label {}, expected >= 0; drop-labels = {} leaves such examples out, classes = "
                        "{} makes it a class",
                        place_of(source_, first([&](const auto& label) { return label == name; })), name,
                        label_list({name}), distinct_.size() <= kFewClasses ? label_list(distinct_) : "[…]"));
      }
    }
    if (distinct_.size() > kManyClasses && distinct_.size() > static_cast<std::size_t>(count_targets(source_)) / 2) {
      throw DataError(
          fmt::format("{}: {} different labels in {} examples: if they are numbers use the loss "
                      "squared-error, if classes list them in classes",
                      source_.targets_from, distinct_.size(), count_targets(source_)));
    }
    by_name(distinct_);
  }

  /// The first example that has such a label.
  template <class Such>
  std::int64_t first(const Such& such) const {
    std::int64_t i = 0;
    while (i + 1 < count_targets(source_) && (labels_.name(i).empty() || !such(labels_.name(i)))) {
      ++i;
    }
    return i;
  }

  const SourceExamples& source_;
  const LabelNames& labels_;
  const std::string& format_;
  const HeadClasses& head_;
  const std::vector<std::string>&distinct_, &listed_, number_names_;
  Numbering out_;
};

/// Whether the labels are the numbers that a loss compares outputs with.
bool are_values(const SourceExamples& source, const CommonKeys& keys, const DataReading& reading) {
  if (source.values.defined()) {
    return true;
  }
  const bool compares_numbers = reading.wanted == TargetKind::kValues || reading.wanted == TargetKind::kProbabilities;
  if (!compares_numbers || !keys.classes.empty() || !reading.known_classes.empty() || source.labels_are_names) {
    return false;
  }
  return source.labels.defined() || std::any_of(source.label_cells.begin(), source.label_cells.end(),
                                                [](const auto& cell) { return number_in(cell).has_value(); });
}

at::Tensor values_of(const SourceExamples& source, const CommonKeys& keys, std::vector<std::int64_t>& rows) {
  std::vector<double> values;
  std::set<std::string> drops;
  std::set<double> dropped_values;  // however they are written
  for (const auto& label : keys.drop_labels) {
    drops.insert(label);
    if (const auto number = number_in(label)) {
      dropped_values.insert(*number);
    }
  }
  const auto labels = source.labels.defined() ? source.labels.contiguous() : at::Tensor();
  for (std::int64_t i = 0; i < count_targets(source); ++i) {
    if (labels.defined()) {
      const auto label = static_cast<double>(labels.const_data_ptr<std::int64_t>()[i]);
      if (dropped_values.count(label) == 0) {
        rows.push_back(i);
        values.push_back(label);
      }
      continue;
    }
    const auto& cell = source.label_cells[static_cast<std::size_t>(i)];
    const auto number = number_in(cell);
    if (drops.count(cell) != 0 || (number && dropped_values.count(*number) != 0)) {
      continue;
    }
    if (!number) {
      throw DataError(fmt::format("{}: {}; drop-labels = [{}] leaves such rows out", place_of(source, i),
                                  cell.empty() ? "no value" : why_no_number(cell), toml_text(cell)));
    }
    rows.push_back(i);
    values.push_back(*number);
  }
  return at::tensor(values, at::kDouble).unsqueeze(1);
}

}  // namespace

Targets find_targets(const SourceExamples& source, const CommonKeys& keys, const std::string& format,
                     const DataReading& reading) {
  Targets out;
  if (are_values(source, keys, reading)) {
    if (!keys.classes.empty() || (source.values.defined() && !keys.drop_labels.empty())) {
      throw InvalidArgument(fmt::format("{}: key {}: the targets of {} are values", format,
                                        keys.classes.empty() ? "drop-labels" : "classes", source.targets_from));
    }
    if (!reading.known_classes.empty()) {
      throw DataError(fmt::format("{}: targets are values, expected classes {}", source.targets_from,
                                  fmt::join(reading.known_classes, ", ")));
    }
    std::vector<std::int64_t> rows;
    auto values = source.values;
    if (!values.defined()) {
      values = values_of(source, keys, rows);
    } else {
      rows.resize(static_cast<std::size_t>(values.size(0)));
      std::iota(rows.begin(), rows.end(), 0);
    }
    const auto begin = std::min(keys.skip, static_cast<std::int64_t>(rows.size()));
    const auto count = std::min(keys.limit, static_cast<std::int64_t>(rows.size()) - begin);
    out.rows.assign(rows.begin() + begin, rows.begin() + begin + count);
    out.values = values.narrow(0, begin, count);
    return out;
  }
  const auto& known = reading.known_classes.empty() ? reading.head.names : reading.known_classes;
  const LabelNames labels(source, keys, known);
  auto numbering = Settlement(source, keys, format, reading, labels).take();
  std::set<std::string> met;
  std::int64_t passed = 0;
  for (std::int64_t i = 0; i < count_targets(source); ++i) {  // past the limit too: a bad label is damage anywhere
    const auto& name = labels.name(i);
    if (name.empty() || (!numbering.kept.empty() && numbering.kept.count(name) == 0)) {
      continue;
    }
    const auto found = numbering.numbers.find(name);
    if (found == numbering.numbers.end()) {
      throw DataError(fmt::format("{} has label {}, expected {}; {} leaves such examples out", place_of(source, i),
                                  name, numbering.expected,
                                  reading.known_classes.empty() || numbering.classes.size() > kFewClasses
                                      ? "drop-labels = " + label_list({name})
                                      : "classes = " + label_list(numbering.classes)));
    }
    met.insert(name);
    if (passed++ >= keys.skip && static_cast<std::int64_t>(out.rows.size()) < keys.limit) {
      out.rows.push_back(i);
      out.numbers.push_back(found->second);
    }
  }
  for (const auto& name : numbering.kept) {
    if (met.count(name) == 0 && !numbering.some) {
      throw InvalidArgument(fmt::format("{}: key classes: no example of {} has label {}, only {}", format,
                                        source.targets_from, name, shown(labels.distinct())));
    }
  }
  out.classes = std::move(numbering.classes);
  out.note = std::move(numbering.note);
  out.places = std::move(numbering.numbers);
  return out;
}

}  // namespace whence::detail

namespace whence {

bool HeadClasses::are_places(const std::vector<std::string>& labels) const {
  const auto count = names.empty() ? outputs : std::ssize(names);
  return std::all_of(labels.begin(), labels.end(), [&](const auto& label) { return detail::is_place(label, count); });
}

}  // namespace whence
