#include "whence/kernels/detail/taped_block.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "whence/core/memory.h"
#include "whence/core/progress.h"
#include "whence/core/rounding.h"
#include "whence/models/addition.h"
#include "whence/models/ops.h"

namespace whence::detail {
namespace {

/// Matrices at least so high are looked through for rows that are 0 in the whole block: a vocabulary's, of which a
/// batch sees few.
constexpr std::int64_t kManyRows = 2048;

bool is_among(const std::string& name, const std::vector<std::string>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool has_source(const TapeEntry& entry, const std::string& name) { return is_among(name, weight_sources(entry)); }

double bytes_of(const at::Tensor& x) {
  return x.defined() ? static_cast<double>(x.numel()) * static_cast<double>(x.element_size()) : 0;
}

/// The signals of all outputs at one entry as [B, C, L, outputs of the layer].
at::Tensor stacked_signals(const TapeEntry& entry, const TensorList& signals) {
  TensorList rows;
  for (const auto& of_output : signals) {
    rows.push_back(widened(signal_positions(entry, of_output)));
  }
  return at::stack(rows, 1);
}

/// What layers see, laid out by example, once for all that see the same tensor.
class InputPositions {
 public:
  at::Tensor operator()(const TapeEntry& entry) {
    const auto& places = entry.rows.places;
    auto& found =
        made_[{entry.input.data_ptr(),
               places.defined() ? places.data_ptr() : nullptr,
               {entry.input.sizes().vec(), entry.input.strides().vec(), entry.kernel, entry.padding, entry.stride}}];
    if (!found.defined()) {
      found = entry.kind == TapeEntry::Kind::kEmbedding ? by_example(entry, entry.input)
                                                        : widened(input_positions(entry)).unsqueeze(1);
    }
    return found;
  }

 private:
  std::map<std::tuple<const void*, const void*, std::vector<std::vector<std::int64_t>>>, at::Tensor> made_;
};

/// A use of a matrix, `first` being along the rows of the weight as it is stored.
MatrixUse matrix_use(const TapeEntry& entry, const at::Tensor& inputs, at::Tensor signals) {
  const Side signal{std::move(signals), {}};
  if (entry.kind == TapeEntry::Kind::kEmbedding) {
    const Side picks{{}, inputs};
    return entry.transposed ? MatrixUse{signal, picks, false} : MatrixUse{picks, signal, true};
  }
  const Side input{inputs, {}};
  return entry.transposed ? MatrixUse{input, signal, true} : MatrixUse{signal, input, false};
}

/// Gradients of one use in a parameter that is no matrix of its own, [B, C, entries].
at::Tensor formed_use(const ParameterSet& merged, const TapeEntry& entry, const TensorList& signals,
                      const std::string& name) {
  TensorList rows;
  for (const auto& given : signals) {
    const auto signal = widened(given);
    if (entry.bias == name) {
      rows.push_back(entry.kind == TapeEntry::Kind::kConvolution ? signal.sum({2, 3}) : by_owner(entry, signal));
    } else if (entry.made_by) {
      auto widened_entry = entry;
      widened_entry.input = widened(entry.input);
      rows.push_back(source_gradients(merged, widened_entry, signal, name));
    } else if (entry.kind == TapeEntry::Kind::kConvolution) {
      auto widened_entry = entry;
      widened_entry.input = widened(entry.input);
      rows.push_back(filter_gradients(widened_entry, signal));
    } else {
      rows.push_back(by_owner(entry, signal * widened(entry.input)));
    }
  }
  return at::stack(rows, 1);
}

/// Leaves out the rows of the height at which no use of the block has anything.
void leave_out_zeros(ParameterGradients& gradients) {
  if (gradients.height < kManyRows) {
    return;
  }
  at::Tensor seen;
  for (const auto& use : gradients.uses) {
    at::Tensor here;
    if (use.first.is_picks()) {
      const auto ids = std::get<0>(at::_unique(use.first.picks));
      here = at::zeros({gradients.height}, ids.options().dtype(at::kBool)).index_fill_(0, ids, true);
    } else {
      here = use.first.values.ne(0).flatten(0, 2).any(0);
    }
    seen = seen.defined() ? seen.logical_or_(here) : here;
  }
  const auto places = seen.nonzero().squeeze(1);
  if (2 * places.numel() > gradients.height) {
    return;
  }
  const auto lookup = at::full({gradients.height}, -1, places.options());
  lookup.index_put_({places}, at::arange(places.numel(), places.options()));
  for (auto& use : gradients.uses) {
    auto& first = use.first;
    if (first.is_picks()) {
      first.picks = lookup.index_select(0, first.picks.flatten()).view(first.picks.sizes());
    } else {
      first.values = first.values.index_select(3, places);
    }
  }
  gradients.places = places;
}

/// [B, C, entries] of a matrix's use, in the order of the weight.
at::Tensor formed_matrix(const MatrixUse& use, std::int64_t height, std::int64_t width) {
  const auto dense = [](const Side& side, std::int64_t size) {
    return side.is_picks() ? at::one_hot(side.picks, size).to(at::kDouble).unsqueeze(1) : side.values;
  };
  const auto first = dense(use.first, height), second = dense(use.second, width);
  const auto type = use.first.is_picks() ? second.scalar_type() : first.scalar_type();
  return at::matmul(first.to(type).transpose(2, 3), second.to(type)).flatten(2);
}

/// Sides of several passes as one, laid out as long as the longest.
at::Tensor joined_side(const TensorList& parts, std::int64_t along, double filling) {
  std::int64_t longest = 0;
  for (const auto& part : parts) {
    longest = std::max(longest, part.size(along));
  }
  TensorList padded;
  for (const auto& part : parts) {
    std::vector<std::int64_t> more(static_cast<std::size_t>(2 * (part.dim() - along)), 0);
    more.back() = longest - part.size(along);
    padded.push_back(more.back() == 0 ? part : at::constant_pad_nd(part, more, filling));
  }
  return at::cat(padded);
}
at::Tensor joined_picks(const TensorList& parts) { return joined_side(parts, 1, -1); }

/// Sides' values, joined once for all parameters that share the parts, as those of layers that see the same. Parts must
/// have been there before the first of them is freed: they are known by where they lie.
class JoinedValues {
 public:
  at::Tensor operator()(const TensorList& parts) {
    std::vector<Place> key;
    for (const auto& part : parts) {
      key.push_back({part.data_ptr(), part.sizes().vec(), part.strides().vec()});
    }
    auto& found = made_[key];
    if (!found.defined()) {
      found = joined_side(parts, 2, 0);
    }
    return found;
  }

 private:
  using Place = std::tuple<const void*, std::vector<std::int64_t>, std::vector<std::int64_t>>;
  std::map<std::vector<Place>, at::Tensor> made_;
};

/// The gradients at rows `places` of the height, of which it has all that it has itself; undefined: at all.
void lay_out(ParameterGradients& gradients, const at::Tensor& places) {
  if (!gradients.places.defined()) {
    return;
  }
  auto own = gradients.places;
  if (places.defined()) {
    const auto lookup = at::full({gradients.height}, -1, own.options());
    lookup.index_put_({places}, at::arange(places.numel(), own.options()));
    own = lookup.index_select(0, own);
  }
  for (auto& use : gradients.uses) {
    auto& first = use.first;
    if (first.is_picks()) {
      const auto flat = first.picks.flatten();
      first.picks = own.index_select(0, flat.clamp_min(0)).masked_fill(flat.lt(0), -1).view(first.picks.sizes());
    } else {
      auto shape = first.values.sizes().vec();
      shape[3] = places.defined() ? places.numel() : gradients.height;
      first.values = at::zeros(shape, first.values.options()).index_copy_(3, own, first.values);
    }
  }
  gradients.places = places;
}

/// What several passes left, as one would have left it. Each parameter's parts go as they are joined.
std::vector<ParameterGradients> joined(std::vector<std::vector<ParameterGradients>> parts) {
  auto out = std::move(parts.front());
  if (parts.size() == 1) {
    return out;
  }
  JoinedValues joined_values;
  for (std::size_t p = 0; p < out.size(); ++p) {
    std::vector<ParameterGradients> all{std::move(out[p])};
    for (std::size_t i = 1; i < parts.size(); ++i) {
      all.push_back(std::move(parts[i][p]));
    }
    TensorList formed, places;
    for (const auto& one : all) {
      formed.push_back(one.formed);
      places.push_back(one.places);
    }
    auto& whole = out[p];
    whole = {all[0].name, all[0].height, all[0].width, {}, {}, {}};
    if (formed[0].defined()) {
      whole.formed = at::cat(formed);
    }
    if (std::all_of(places.begin(), places.end(), [](const auto& some) { return some.defined(); })) {
      whole.places = std::get<0>(at::_unique(at::cat(places)));
    }
    bool laid_out = false;
    for (auto& one : all) {
      laid_out = laid_out || one.places.defined();
      lay_out(one, whole.places);
    }
    for (std::size_t u = 0; u < all[0].uses.size(); ++u) {
      const auto side = [&](Side MatrixUse::*of, bool made_now) {
        TensorList some;
        const bool picks = (all[0].uses[u].*of).is_picks();
        for (const auto& one : all) {
          const auto& from = one.uses[u].*of;
          some.push_back(picks ? from.picks : from.values);
        }
        return picks ? Side{{}, joined_picks(some)}
                     : Side{made_now ? joined_side(some, 2, 0) : joined_values(some), {}};
      };
      whole.uses.push_back(
          {side(&MatrixUse::first, laid_out), side(&MatrixUse::second, false), all[0].uses[u].input_first});
    }
    all.clear();
    give_back_freed_memory();  // parts are of sizes that the allocator keeps, which would take as much again
  }
  return out;
}

}  // namespace

std::int64_t Side::outputs() const { return is_picks() ? 1 : values.size(1); }
std::int64_t Side::positions() const { return is_picks() ? picks.size(1) : values.size(2); }

std::vector<std::string> taped_names(const KernelPoint& point, const ParameterSet& merged, const Dataset& data) {
  Tape tape;
  {
    const at::NoGradGuard no_gradient;
    point.objective.model().output(merged.with(detach(merged.values())), data.batch(0, 1), &tape);
  }
  const auto& trained = point.objective.trained().names();
  std::vector<std::string> out;
  for (const auto& name : point.names) {
    const auto at = static_cast<std::size_t>(std::find(trained.begin(), trained.end(), name) - trained.begin());
    const bool owned = std::any_of(tape.entries.begin(), tape.entries.end(), [&](const TapeEntry& entry) {
      return entry.bias == name || has_source(entry, name);
    });
    if (owned && merged.contains(name) && merged.at(name).data_ptr() == point.theta[at].data_ptr()) {
      out.push_back(name);
    }
  }
  return out;
}

TapedBlock::TapedBlock(const KernelPoint& point, const ParameterSet& merged, const std::vector<std::string>& taped,
                       const Dataset& data, std::int64_t begin, std::int64_t end, std::int64_t pass)
    : examples_(end - begin) {
  std::vector<std::vector<ParameterGradients>> parts;
  for (auto from = begin; from < end; from += pass) {
    parts.push_back(passed(point, merged, taped, data, from, std::min(end, from + pass)));
  }
  parameters_ = joined(std::move(parts));
  std::vector<std::string> others;
  for (const auto& name : point.names) {
    if (!is_among(name, taped)) {
      others.push_back(name);
    }
  }
  if (!others.empty()) {
    form_by_autograd(point, data, begin, others);
  }
}

std::vector<ParameterGradients> TapedBlock::passed(const KernelPoint& point, const ParameterSet& merged,
                                                   const std::vector<std::string>& taped, const Dataset& data,
                                                   std::int64_t begin, std::int64_t end) {
  const auto batch = data.batch(begin, end);
  const auto is_part = [&](const TapeEntry& entry) {
    const auto sources = weight_sources(entry);
    return is_among(entry.bias, taped) ||
           std::any_of(sources.begin(), sources.end(), [&](const auto& name) { return is_among(name, taped); });
  };
  std::vector<TapeEntry> entries;
  std::vector<TensorList> signals;  // [entry][output]
  {
    const c10::AutoGradMode with_grad(true);
    const TapedPass pass(point.objective.model(), merged, batch, is_part);
    entries = pass.entries();
    signals.resize(entries.size());
    const auto outputs = point.outputs(pass.output(), batch);
    if (outputs.dim() != 2 || outputs.size(0) != end - begin) {
      throw InvalidArgument("kernel: outputs of a shape other than [examples, outputs]");
    }
    check_finite(outputs.detach(), "the model's outputs");
    outputs_ = outputs.size(1);
    for (std::int64_t c = 0; c < outputs_ && !entries.empty(); ++c) {
      check_interruption();
      auto found = pass.signals(outputs.select(1, c), c + 1 < outputs_);
      for (std::size_t i = 0; i < found.size(); ++i) {
        signals[i].push_back(std::move(found[i]));
      }
    }
    double bytes = 0;
    for (auto& entry : entries) {
      bytes += 3 * bytes_of(entry.input) + static_cast<double>(3 + outputs_) * bytes_of(entry.output);
      entry.output = at::Tensor();  // lets the graph go
    }
    pass_bytes_ = std::max(pass_bytes_, bytes);
  }
  const c10::NoGradGuard no_grad;
  InputPositions positions;
  std::vector<at::Tensor> stacked(entries.size());
  std::vector<ParameterGradients> out;
  for (const auto& name : point.names) {
    ParameterGradients gradients{name, 0, 0, {}, {}, {}};
    for (std::size_t i = 0; i < entries.size() && is_among(name, taped); ++i) {
      const auto& entry = entries[i];
      const bool matrix =
          entry.weight == name && entry.kind != TapeEntry::Kind::kScale && entry.groups == 1 && !entry.made_by;
      if (matrix) {
        stacked[i] = stacked_signals(entry, signals[i]);
        gradients.uses.push_back(matrix_use(entry, positions(entry), stacked[i]));
        const auto& weight = merged.at(name);
        gradients.height = weight.size(0);
        gradients.width = weight.numel() / weight.size(0);
      }
      if (entry.bias == name || (!matrix && has_source(entry, name))) {
        const auto part = formed_use(merged, entry, signals[i], name);
        gradients.formed = gradients.formed.defined() ? gradients.formed.add_(part) : part;
      }
    }
    if (gradients.formed.defined()) {  // a matrix that is also a source of another
      for (const auto& use : gradients.uses) {
        gradients.formed.add_(formed_matrix(use, gradients.height, gradients.width));
      }
      gradients.uses.clear();
    }
    const bool picks_second = std::any_of(gradients.uses.begin(), gradients.uses.end(),
                                          [](const MatrixUse& use) { return use.second.is_picks(); });
    if (picks_second) {
      std::swap(gradients.height, gradients.width);
      for (auto& use : gradients.uses) {
        std::swap(use.first, use.second);
        use.input_first = !use.input_first;
      }
    }
    leave_out_zeros(gradients);
    out.push_back(std::move(gradients));
  }
  return out;
}

void TapedBlock::form_by_autograd(const KernelPoint& point, const Dataset& data, std::int64_t begin,
                                  const std::vector<std::string>& names) {
  const c10::AutoGradMode with_grad(true);
  const DerivativeOrder first(1);
  const auto& trained = point.objective.trained().names();
  auto theta = detach(point.theta);
  const auto parent = detach(point.parent);
  TensorList wanted;
  for (const auto& name : names) {
    const auto i = static_cast<std::size_t>(std::find(trained.begin(), trained.end(), name) - trained.begin());
    wanted.push_back(theta[i].requires_grad_(true));
  }
  std::vector<TensorList> rows(names.size());
  for (std::int64_t b = 0; b < examples_; ++b) {
    check_interruption();
    const auto one = data.batch(begin + b, begin + b + 1);
    const auto outputs = point.outputs(point.objective.output(theta, parent, one), one);
    for (std::int64_t c = 0; c < outputs_; ++c) {
      const auto found = gradient(outputs[0][c], wanted, false, c + 1 < outputs_);
      for (std::size_t i = 0; i < found.size(); ++i) {
        rows[i].push_back(widened(found[i]).detach().flatten());
      }
    }
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto at = std::find_if(parameters_.begin(), parameters_.end(),
                                 [&](const ParameterGradients& p) { return p.name == names[i]; });
    at->formed = at::stack(rows[i]).view({examples_, outputs_, -1});
  }
}

double TapedBlock::bytes() const {
  std::set<const void*> seen;
  double out = 0;
  const auto add = [&](const at::Tensor& x) {
    if (x.defined() && seen.insert(x.data_ptr()).second) {
      out += bytes_of(x);
    }
  };
  for (const auto& parameter : parameters_) {
    add(parameter.formed);
    for (const auto& use : parameter.uses) {
      for (const auto* side : {&use.first, &use.second}) {
        add(side->values);
        add(side->picks);
      }
    }
  }
  return out;
}

}  // namespace whence::detail
