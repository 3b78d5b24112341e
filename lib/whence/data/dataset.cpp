#include "whence/data/dataset.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "whence/core/error.h"
#include "whence/core/memory.h"
#include "whence/data/detail/bytes.h"
#include "whence/text/tokenizer.h"

namespace whence {
namespace {

constexpr double kKeptBytes = 1 << 30;  // of converted inputs that a dataset keeps

void check_texts(const Dataset::Contents& c) {
  const auto& t = c.texts;
  const auto total = t.tokens.size(0);
  if (t.begins.sizes() != c.ids.sizes() || t.lengths.sizes() != c.ids.sizes() ||
      (t.targets.defined() == c.targets.defined()) || (t.targets.defined() && t.targets.size(0) != total)) {
    throw InvalidArgument("dataset: texts need begins and lengths [N] and targets of tokens or of examples");
  }
  if (t.lengths.numel() == 0) {
    return;
  }
  if (t.lengths.min().item<std::int64_t>() < 1 || (t.begins + t.lengths).max().item<std::int64_t>() > total) {
    throw InvalidArgument("dataset: a text is empty or leaves the tokens");
  }
  const auto check = [&](const at::Tensor& tokens, std::int64_t low, const char* what) {
    const auto least = tokens.min().item<std::int64_t>(), most = tokens.max().item<std::int64_t>();
    if (least < low || most >= t.vocabulary) {
      throw InvalidArgument(fmt::format("dataset: {} {}, expected one of 0 to {}: the tokens are of another vocabulary",
                                        what, least < low ? least : most, t.vocabulary - 1));
    }
  };
  check(t.tokens, 0, "token");
  if (t.targets.defined()) {
    check(t.targets, -1, "predicted token");
  }
}

void check_shapes(const Dataset::Contents& c) {
  if (!c.ids.defined() || c.ids.dim() != 1 || c.ids.scalar_type() != at::kLong) {
    throw InvalidArgument("dataset: ids int64 [N] are needed");
  }
  if (c.texts.tokens.defined()) {
    check_texts(c);
    const bool values = c.targets.defined() && c.classes.empty() && c.targets.dim() == 2 && c.targets.size(1) > 0 &&
                        c.targets.is_floating_point() && c.targets.size(0) == c.ids.size(0);
    if (c.targets.defined() && !values && c.targets.sizes() != c.ids.sizes()) {
      throw InvalidArgument(
          fmt::format("dataset: targets [{}] for {} texts", fmt::join(c.targets.sizes(), ", "), c.ids.size(0)));
    }
    return;
  }
  if (!c.inputs.defined() || c.inputs.dim() < 1 || !c.targets.defined()) {
    throw InvalidArgument("dataset: inputs [N, ...], targets and ids are needed");
  }
  const auto count = c.inputs.size(0);
  const bool targets_fit = c.classes.empty() ? c.targets.dim() == 2 && c.targets.is_floating_point()
                                             : c.targets.dim() == 1 && c.targets.scalar_type() == at::kLong;
  if (!targets_fit || c.targets.size(0) != count) {
    throw InvalidArgument(fmt::format("dataset: targets [{}] of {}, expected {} for {} inputs",
                                      fmt::join(c.targets.sizes(), ", "), c10::toString(c.targets.scalar_type()),
                                      c.classes.empty() ? "floating [N, k]" : "int64 [N]", count));
  }
  if (c.ids.dim() != 1 || c.ids.size(0) != count || c.ids.scalar_type() != at::kLong) {
    throw InvalidArgument(fmt::format("dataset: ids [{}] of {}, expected int64 [{}]", fmt::join(c.ids.sizes(), ", "),
                                      c10::toString(c.ids.scalar_type()), count));
  }
}

}  // namespace

Dataset::Dataset(Contents contents) : contents_(std::move(contents)) {
  const auto& c = contents_;
  check_shapes(c);
  for (const auto& [what, x] : {std::pair("inputs", c.inputs), std::pair("targets", c.targets)}) {
    if (!x.defined()) {
      continue;
    }
    if (const auto row = detail::first_nonfinite_row(x); row >= 0) {
      throw InvalidArgument(
          fmt::format("dataset: the {} of example {} are not finite", what, c.ids[row].item<std::int64_t>()));
    }
  }
  if (!std::isfinite(c.scale)) {
    throw InvalidArgument(fmt::format("dataset: scale {}, expected a finite number", c.scale));
  }
  if (c.table && (c.inputs.dim() != 2 || c.inputs.size(1) != c.table->width())) {
    throw InvalidArgument(fmt::format("dataset: inputs [{}] of a table of {} columns",
                                      fmt::join(c.inputs.sizes(), ", "), c.table->width()));
  }
  if (!c.classes.empty() && size() > 0) {
    const auto low = c.targets.min().item<std::int64_t>(), high = c.targets.max().item<std::int64_t>();
    if (low < 0 || high >= outputs()) {
      throw InvalidArgument(
          fmt::format("dataset: class number {}, expected one of 0 to {}", low < 0 ? low : high, outputs() - 1));
    }
  }
}

std::vector<std::string> Dataset::columns() const {
  return contents_.table ? contents_.table->names() : std::vector<std::string>{};
}

std::vector<std::pair<std::string, std::string>> Dataset::cells(std::int64_t row) const {
  if (!contents_.table) {
    return {};
  }
  check_rows(at::tensor({row}, at::kLong));
  return contents_.table->cells(contents_.inputs[row]);
}

std::int64_t Dataset::size() const { return contents_.ids.defined() ? contents_.ids.size(0) : 0; }

TargetKind Dataset::target_kind() const {
  if (contents_.texts.targets.defined()) {
    return contents_.predicted;
  }
  return contents_.classes.empty() ? TargetKind::kValues : TargetKind::kClasses;
}

std::int64_t Dataset::head_outputs() const {
  return contents_.texts.targets.defined() || contents_.texts.asked.defined() ? 0 : outputs();
}

std::int64_t Dataset::predictions() const {
  return contents_.texts.targets.defined() ? contents_.texts.targets.size(0) : size();
}

std::int64_t Dataset::tokens() const { return is_text() ? contents_.texts.lengths.sum().item<std::int64_t>() : 0; }

std::int64_t Dataset::longest() const { return is_text() ? contents_.texts.lengths.max().item<std::int64_t>() : 0; }

std::int64_t Dataset::outputs() const {
  if (contents_.texts.targets.defined()) {
    return contents_.texts.vocabulary;
  }
  return target_kind() == TargetKind::kClasses ? static_cast<std::int64_t>(contents_.classes.size())
                                               : contents_.targets.size(1);
}

std::vector<std::int64_t> Dataset::input_shape() const {
  return is_text() ? std::vector<std::int64_t>{} : contents_.inputs.sizes().slice(1).vec();
}

Batch Dataset::batch(std::int64_t begin, std::int64_t end) const {
  if (begin < 0 || begin > end || end > size()) {
    throw InvalidArgument(fmt::format("dataset: examples {} to {}, expected within 0 to {}", begin, end, size()));
  }
  if (is_text()) {
    return text_batch(at::arange(begin, end, at::kLong));
  }
  const auto& inputs = ready_inputs_.defined() ? ready_inputs_ : contents_.inputs;
  return make_batch(inputs.narrow(0, begin, end - begin), contents_.targets.narrow(0, begin, end - begin),
                    at::arange(begin, end, at::kLong));
}

Batch Dataset::batch(const at::Tensor& rows) const {
  check_rows(rows);
  if (is_text()) {
    return text_batch(rows);
  }
  const auto& inputs = ready_inputs_.defined() ? ready_inputs_ : contents_.inputs;
  return make_batch(inputs.index_select(0, rows.to(inputs.device())), contents_.targets.index_select(0, rows), rows);
}

at::Tensor Dataset::picture(std::int64_t row) const {
  check_rows(at::tensor({row}, at::kLong));
  return contents_.inputs[row].to(at::kCPU, at::kFloat) * contents_.scale;
}

Batch Dataset::make_batch(at::Tensor inputs, at::Tensor targets, const at::Tensor& rows) const {
  if (!ready_inputs_.defined()) {
    inputs = inputs.to(at::TensorOptions().dtype(dtype_).device(device_));
    if (contents_.scale != 1) {
      inputs = inputs * contents_.scale;
    }
    if (contents_.mean.defined()) {
      inputs = inputs - contents_.mean.to(inputs.options());
    }
    if (contents_.deviation.defined()) {
      inputs = inputs / contents_.deviation.to(inputs.options());
    }
  }
  targets = targets.to(device_);
  return {.inputs = std::move(inputs),
          .targets = target_kind() == TargetKind::kClasses ? targets : targets.to(dtype_),
          .ids = contents_.ids.index_select(0, rows),
          .rows = rows,
          .sampled = sampled_};
}

namespace {

/// A row of tokens and place of each text: first fit, longest first, in rows as long as the longest. Where no two share
/// a row, text i is in row i.
struct Packing {
  std::vector<std::int64_t> row, begin;  // of each text
  std::int64_t rows = 0;
};

Packing pack(const std::vector<std::int64_t>& lengths, std::int64_t width, bool share) {
  Packing out;
  out.row.resize(lengths.size());
  out.begin.assign(lengths.size(), 0);
  const auto in_order = [&out, &lengths] {
    out.rows = static_cast<std::int64_t>(lengths.size());
    std::iota(out.row.begin(), out.row.end(), 0);
    return out;
  };
  if (!share) {
    return in_order();
  }
  std::vector<std::size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return lengths[a] > lengths[b]; });
  std::vector<std::int64_t> used;                       // of each row
  std::multimap<std::int64_t, std::int64_t> with_room;  // room left, row
  for (const auto i : order) {
    auto found = with_room.lower_bound(lengths[i]);
    std::int64_t row = out.rows;
    if (found == with_room.end()) {
      used.push_back(0);
      ++out.rows;
    } else {
      row = found->second;
      with_room.erase(found);
    }
    auto& in_row = used[static_cast<std::size_t>(row)];
    out.row[i] = row;
    out.begin[i] = in_row;
    in_row += lengths[i];
    if (in_row < width) {
      with_room.emplace(width - in_row, row);
    }
  }
  return out.rows == static_cast<std::int64_t>(lengths.size()) ? in_order() : out;
}

std::vector<std::int64_t> to_vector(const at::Tensor& x) {
  const auto flat = x.contiguous();
  return {flat.const_data_ptr<std::int64_t>(), flat.const_data_ptr<std::int64_t>() + flat.numel()};
}

}  // namespace

Batch Dataset::text_batch(const at::Tensor& rows) const {
  const auto& texts = contents_.texts;
  const auto begins = to_vector(texts.begins.index_select(0, rows));
  const auto lengths = to_vector(texts.lengths.index_select(0, rows));
  const auto count = static_cast<std::int64_t>(lengths.size());
  const auto width = count == 0 ? 0 : *std::max_element(lengths.begin(), lengths.end());
  const auto packing = pack(lengths, width, packed_);
  const auto longs = at::TensorOptions(at::kLong);
  const auto shape = std::vector<std::int64_t>{packing.rows, width};

  Batch batch;
  batch.sampled = sampled_;
  batch.ids = contents_.ids.index_select(0, rows);
  batch.rows = rows;
  TokenLayout layout;
  layout.lengths = at::tensor(lengths, longs);
  layout.examples = at::full(shape, -1, longs);
  layout.positions = at::zeros(shape, longs);
  layout.tokens.plain = packing.rows == count;  // then text b lies in row b from its start
  layout.tokens.places = at::full({count, width}, -1, longs);
  batch.inputs = at::zeros(shape, longs);
  const bool typed = texts.types.defined(), predicts = texts.targets.defined();
  if (typed) {
    layout.types = at::zeros(shape, longs);
  }
  const auto* tokens = texts.tokens.const_data_ptr<std::int32_t>();
  const auto* types = typed ? texts.types.const_data_ptr<std::uint8_t>() : nullptr;
  const auto* wanted = predicts ? texts.targets.const_data_ptr<std::int32_t>() : nullptr;
  std::vector<std::int64_t> predicted, targets, owners, serials, counts;
  for (std::int64_t b = 0; b < count; ++b) {
    const auto i = static_cast<std::size_t>(b);
    counts.push_back(0);
    const auto first = packing.row[i] * width + packing.begin[i];
    for (std::int64_t t = 0; t < lengths[i]; ++t) {
      const auto place = first + t, source = begins[i] + t;
      batch.inputs.mutable_data_ptr<std::int64_t>()[place] = tokens[source];
      layout.examples.mutable_data_ptr<std::int64_t>()[place] = b;
      layout.positions.mutable_data_ptr<std::int64_t>()[place] = t;
      layout.tokens.places.mutable_data_ptr<std::int64_t>()[b * width + t] = place;
      if (typed) {
        layout.types.mutable_data_ptr<std::int64_t>()[place] = types[source];
      }
      if (predicts && wanted[source] >= 0) {
        predicted.push_back(place);
        targets.push_back(wanted[source]);
        owners.push_back(b);
        serials.push_back(source);
        ++counts.back();
      }
    }
  }
  layout.tokens.owners = layout.examples.flatten().clamp_min(0);
  if (predicts) {
    const auto most = count == 0 ? 0 : *std::max_element(counts.begin(), counts.end());
    layout.predicted = at::tensor(predicted, longs);
    layout.serials = at::tensor(serials, longs);
    layout.predictions.owners = at::tensor(owners, longs);
    layout.predictions.origins = layout.predicted;
    layout.predictions.places = at::full({count, most}, -1, longs);
    for (std::int64_t b = 0, row = 0; b < count; ++b) {
      for (std::int64_t t = 0; t < counts[static_cast<std::size_t>(b)]; ++t) {
        layout.predictions.places.mutable_data_ptr<std::int64_t>()[b * most + t] = row++;
      }
    }
    layout.predictions.plain = most * count == static_cast<std::int64_t>(owners.size());
    batch.targets = at::tensor(targets, longs);
  } else {
    batch.targets = contents_.targets.index_select(0, rows);
    if (target_kind() == TargetKind::kValues) {
      batch.targets = batch.targets.to(dtype_);
    }
  }
  if (texts.asked.defined()) {
    layout.asked = layout.tokens.places.gather(1, texts.asked.index_select(0, rows).unsqueeze(1)).squeeze(1);
    layout.words = texts.words;
  }
  if (!device_.is_cpu()) {
    for (auto* part :
         {&batch.inputs, &batch.targets, &layout.tokens.owners, &layout.tokens.places, &layout.examples,
          &layout.positions, &layout.lengths, &layout.types, &layout.predicted, &layout.predictions.owners,
          &layout.predictions.places, &layout.predictions.origins, &layout.serials, &layout.asked, &layout.words}) {
      if (part->defined()) {
        *part = part->to(device_);
      }
    }
  }
  batch.text = std::move(layout);
  return batch;
}

std::vector<std::string> Dataset::token_texts(std::int64_t row) const {
  const auto& texts = contents_.texts;
  const auto tokens =
      texts.tokens.narrow(0, texts.begins[row].item<std::int64_t>(), texts.lengths[row].item<std::int64_t>());
  const std::vector<std::int32_t> ids(tokens.const_data_ptr<std::int32_t>(),
                                      tokens.const_data_ptr<std::int32_t>() + tokens.numel());
  std::vector<std::string> out;
  if (!texts.tokenizer) {
    for (const auto id : ids) {
      out.push_back(fmt::format("{} ", id));
    }
    return out;
  }
  const auto decode = [&](std::size_t begin, std::size_t end) {
    return texts.tokenizer->decode(std::span(ids).subspan(begin, end - begin), /*skip_special_tokens=*/false);
  };
  std::size_t pending = 0;  // the first token of a character that is not whole yet
  for (std::size_t t = 0; t < ids.size(); ++t) {
    const auto before = pending > 0 ? pending - 1 : 0;  // a space before a word shows only after another token
    auto text = decode(before, t + 1);
    const auto known = decode(before, pending);
    if (text.ends_with("\xEF\xBF\xBD") && t + 1 < ids.size() && t - pending < 4) {
      out.emplace_back();
      continue;
    }
    out.push_back(text.starts_with(known) ? text.substr(known.size()) : text);
    pending = t + 1;
  }
  return out;
}

std::string Dataset::origin(std::int64_t row) const {
  const auto id = contents_.ids[row].item<std::int64_t>();
  const auto& origins = contents_.origins;
  const auto after = std::find_if(origins.begin(), origins.end(), [&](const Origin& o) { return o.first_id > id; });
  if (after == origins.begin()) {
    return fmt::format("row {}", id);
  }
  const auto& origin = *(after - 1);
  return fmt::format("{} {} of {}", origin.blocks ? "block" : "row", id - origin.first_id,
                     origin.file.filename().string());
}

const std::string& Dataset::digest(const std::function<std::string()>& make) const {
  std::call_once(digest_->made, [&] { digest_->text = make(); });
  return digest_->text;
}

Dataset Dataset::without_packing() const {
  Dataset out = *this;
  out.packed_ = false;
  return out;
}

Dataset Dataset::as_sampled() const {
  Dataset out = *this;
  out.sampled_ = true;
  return out;
}

void Dataset::check_rows(const at::Tensor& rows) const {
  if (rows.dim() != 1 || rows.scalar_type() != at::kLong || !rows.is_cpu()) {
    throw InvalidArgument(fmt::format("dataset: rows [{}] of {}, expected int64 [B] on the CPU",
                                      fmt::join(rows.sizes(), ", "), c10::toString(rows.scalar_type())));
  }
  if (rows.numel() == 0) {
    return;
  }
  const auto low = rows.min().item<std::int64_t>(), high = rows.max().item<std::int64_t>();
  if (low < 0 || high >= size()) {
    throw InvalidArgument(fmt::format("dataset: row {}, expected one of 0 to {}", low < 0 ? low : high, size() - 1));
  }
}

/// Numbers that are finite as they are stored must be so in `dtype`.
void Dataset::check_reach(at::ScalarType dtype) const {
  for (const auto& [what, x] : {std::pair("input", contents_.inputs), std::pair("target", contents_.targets)}) {
    if (!x.defined() || !x.is_floating_point() || c10::elementSize(x.scalar_type()) <= c10::elementSize(dtype)) {
      continue;
    }
    const auto row = detail::first_nonfinite_row(x, dtype);
    if (row < 0) {
      continue;
    }
    const auto numbers = x[row].flatten();
    const auto column = at::isfinite(numbers.to(dtype)).logical_not().nonzero()[0][0].item<std::int64_t>();
    const auto names = columns();
    const auto place = std::string(what) == "input" && !names.empty()
                           ? fmt::format("column \"{}\"", names[static_cast<std::size_t>(column)])
                           : fmt::format("{} {}", what, column);
    throw DataError(fmt::format("{}example {}, {}: {} is beyond the reach of {}: use --dtype float64{}",
                                contents_.files.empty() ? "" : contents_.files.front().string() + ": ",
                                contents_.ids[row].item<std::int64_t>(), place, numbers[column].item<double>(),
                                dtype == at::kFloat ? "float32" : c10::toString(dtype),
                                names.empty() ? "" : ", or standardize = true before training"));
  }
}

Dataset Dataset::to(at::ScalarType dtype, at::Device device) const {
  if (!at::isFloatingType(dtype)) {
    throw InvalidArgument(fmt::format("dataset: batches of {}, expected a floating type", c10::toString(dtype)));
  }
  Dataset out = *this;
  out.digest_ = std::make_shared<Once>();
  out.dtype_ = dtype;
  out.device_ = device;
  out.ready_inputs_ = at::Tensor();
  if (is_text()) {
    return out;
  }
  check_reach(dtype);
  const auto bytes = contents_.inputs.numel() * static_cast<std::int64_t>(c10::elementSize(dtype));
  if (static_cast<double>(bytes) <= keepable_bytes(kKeptBytes)) {
    out.ready_inputs_ = out.batch(0, size()).inputs;
  }
  return out;
}

Dataset Dataset::take(const at::Tensor& rows) const {
  check_rows(rows);
  Dataset out = *this;
  out.digest_ = std::make_shared<Once>();
  auto& c = out.contents_;
  for (auto* part : {&c.inputs, &c.targets, &c.ids, &c.texts.begins, &c.texts.lengths, &c.texts.asked}) {
    if (part->defined()) {
      *part = part->index_select(0, rows);
    }
  }
  if (ready_inputs_.defined()) {
    out.ready_inputs_ = ready_inputs_.index_select(0, rows.to(device_));
  }
  return out;
}

}  // namespace whence
