#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "whence/data/batch.h"

namespace whence {

/// What a loss wants of a table's label column: class numbers, or values as they are.
enum class TargetKind { kClasses, kValues };

/// Examples in memory or in a mapped file, with ids that survive every filter. Immutable and cheap to copy.
class Dataset {
 public:
  struct Contents {
    at::Tensor inputs;                 ///< [N, ...] any real dtype; kept as it is stored until a batch is asked for.
    at::Tensor targets;                ///< [N] int64 class numbers, or [N, k] floating values.
    at::Tensor ids;                    ///< [N] int64.
    double scale = 1;                  ///< Multiplies the inputs of every batch: 1/255 for stored bytes.
    std::vector<std::string> classes;  ///< Name of each class number; empty for values.
    std::vector<std::filesystem::path> files;  ///< Where it came from.
  };
  Dataset() = default;
  /// Throws InvalidArgument unless the shapes agree, every class number has a name and every value is finite.
  explicit Dataset(Contents contents);

  std::int64_t size() const;
  const at::Tensor& ids() const { return contents_.ids; }
  const at::Tensor& targets() const { return contents_.targets; }
  TargetKind target_kind() const { return contents_.classes.empty() ? TargetKind::kValues : TargetKind::kClasses; }
  const std::vector<std::string>& classes() const { return contents_.classes; }
  const std::vector<std::filesystem::path>& files() const { return contents_.files; }
  /// Width of a prediction: the number of classes, or of values an example.
  std::int64_t outputs() const;
  /// Shape of one example's input.
  std::vector<std::int64_t> input_shape() const;

  /// Examples begin .. end-1 with scaled inputs in the dataset's floating type (float64 until to() is called); values
  /// are in that type too. Inputs and targets are on the dataset's device, ids and rows on the CPU. Views of the
  /// dataset where nothing is to be converted: not to be changed in place.
  Batch batch(std::int64_t begin, std::int64_t end) const;
  /// The examples of `rows` ([B] int64 on the CPU), in that order.
  Batch batch(const at::Tensor& rows) const;
  /// The same examples with batches as `dtype` on `device`, converted from what is stored, whatever this dataset's
  /// type. Converts once and keeps the result when that takes at most 1 GiB.
  Dataset to(at::ScalarType dtype, at::Device device) const;
  /// The examples of `rows` ([B] int64 on the CPU), with their ids.
  Dataset take(const at::Tensor& rows) const;

 private:
  Batch make_batch(at::Tensor inputs, at::Tensor targets, const at::Tensor& rows) const;
  void check_rows(const at::Tensor& rows) const;

  Contents contents_;
  at::Tensor ready_inputs_;  // scaled, in dtype_ on device_; undefined where each batch is converted on its own
  at::ScalarType dtype_ = at::kDouble;
  at::Device device_ = at::kCPU;
};

/// Reads the dataset that a pipeline's data table describes: {"format": "idx", "images": PATH, "labels": PATH,
/// "classes": [5, 6], "limit": 500}; interface.md lists the formats and `whence methods data` their keys. Paths are
/// relative to `folder`; any file may be gzipped (.gz). `classes` keeps only those labels and numbers them in the order
/// given, then `limit` keeps the first so many. `known_classes`, where not empty, are the classes of the stage that the
/// examples are for: they then fix the numbering, and a label outside them is an error. Throws DataError naming the
/// file and the place, InvalidArgument naming the key.
Dataset read_dataset(const nlohmann::json& table, const std::filesystem::path& folder, TargetKind wanted,
                     const std::vector<std::string>& known_classes = {});

}  // namespace whence
