#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/data/dataset.h"

namespace whence {

/// What an exported program takes, gives and is made of, in words.
struct ExportedFacts {
  struct Tensor {
    std::string name, shape, dtype;  ///< "[any, 3, 32, 32]", "Float"; of an output no dtype, and no name of one alone.
  };
  std::vector<Tensor> inputs, outputs;
  std::size_t chosen = 0;       ///< The output that counts,
  std::int64_t dimensions = 0;  ///< how many it has, the batch among them; 0 where the file does not say,
  std::int64_t width = 0;       ///< and its last size; 0 where that is open.
  std::string last_module;      ///< That makes that width by a linear layer, the last that does; empty: none does.
  std::vector<std::pair<std::string, std::int64_t>> layers;  ///< How many of each kind are recorded as layers.
  double copied_share = 0;                                   ///< Of the parameters' entries, those that no layer owns,
  std::vector<std::string> copied;                           ///< and their names.
  std::string why_no_layers;  ///< Why it does not run for one example at a time; empty where it does.
};

/// What a model that is an exported program says of itself besides computing. Its parameters have the names of its
/// state dict, those of the head that was named behind `head.`.
class ExportedModel {
 public:
  virtual ~ExportedModel() = default;
  virtual const std::filesystem::path& file() const = 0;
  /// A line for each thing that was assumed, and that the file's owner should know.
  virtual const std::vector<std::string>& notes() const = 0;
  /// The arguments that an example needs, by forward's names; one alone is an example's input.
  virtual const std::vector<std::string>& arguments() const = 0;
  /// Throws InvalidArgument, naming the argument, where an example's inputs of these shapes, which came from `from`, do
  /// not fit.
  virtual void check_shapes(const std::vector<InputShape>& shapes, const std::string& from) const = 0;
  /// Of a program that takes texts' input_ids: tokens are 0 .. vocabulary() - 1, at most context() of them; 0 of any
  /// other.
  virtual std::int64_t vocabulary() const = 0;
  virtual std::int64_t context() const = 0;
  /// The class of each output, where the file says; else empty.
  virtual const std::vector<std::string>& class_names() const = 0;
  /// What was subtracted from each channel of the inputs before the model, and what they were divided by then, where
  /// the file says; else empty.
  virtual const std::vector<double>& channel_means() const = 0;
  virtual const std::vector<double>& channel_deviations() const = 0;
  /// Whether head = "…" names the module that makes the outputs: for another number of classes a new one is drawn.
  virtual bool has_head() const = 0;
  virtual ExportedFacts facts() const = 0;
  /// The parameters that a file (.pt2) holds: this model's, or another export of it. Throws DataError where it is none,
  /// or its buffers are others, which this model's program would not use.
  virtual ParameterSet read_parameters(const std::filesystem::path& file) const = 0;
};

}  // namespace whence
