#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "whence/core/described.h"
#include "whence/models/exported/detail/archive.h"
#include "whence/models/exported/detail/frozen_program.h"
#include "whence/models/exported/detail/layers.h"
#include "whence/models/exported/detail/signature.h"
#include "whence/models/exported/exported_model.h"
#include "whence/models/model.h"

namespace whence::detail {

struct ExportedOptions {
  std::string file;
  std::string head;
  std::string output;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("file", self.file, AnyText{}, "a program that torch.export.save wrote (.pt2)");
    field("head", self.head, AnyText{},
          "the module that belongs to one stage, by its name: fc; empty: all is handed on");
    field("output", self.output, AnyText{},
          "which of several outputs counts, by its key; empty: the only one, or logits");
  }
};

/// A model that torch.export.save wrote: read in exported.cpp, run in exported_output.cpp.
class Exported : public Model, public ExportedModel, public Described {
 public:
  explicit Exported(ExportedOptions options);

  std::string description() const override { return options_text(options_); }
  const std::filesystem::path& file() const override { return file_; }
  std::vector<std::filesystem::path> files() const override { return {file_}; }
  bool is_trained() const override { return true; }
  const std::vector<std::string>& notes() const override { return notes_; }
  const std::vector<std::string>& arguments() const override { return arguments_; }
  const std::vector<std::string>& class_names() const override { return classes_; }
  const std::vector<double>& channel_means() const override { return means_; }
  const std::vector<double>& channel_deviations() const override { return deviations_; }
  std::int64_t vocabulary() const override { return vocabulary_; }
  std::int64_t context() const override { return signature_.takes_tokens() ? signature_.context() : 0; }
  bool takes_texts() const override { return signature_.takes_tokens(); }
  void check_shapes(const std::vector<InputShape>& shapes, const std::string& from) const override {
    signature_.check_shapes(shapes, from, file_.string());
  }
  bool records_layers() const override { return !no_layers_; }

  ParameterSet initial(at::IntArrayRef input_shape, std::int64_t outputs, Random& random) const override;
  at::Tensor output(const ParameterSet& theta, const Batch& batch, Tape* tape) const override;
  ParameterSet read_parameters(const std::filesystem::path& file) const override;
  bool has_head() const override { return !options_.head.empty(); }
  ExportedFacts facts() const override;

 private:
  void load(ExportArchive archive);
  void leave_unused(ExportArchive& archive);
  ParameterSet parameters_of(const ExportArchive& archive) const;
  std::string name_here(const std::string& name) const;
  at::Tensor output_of(const ParameterSet& theta, const std::vector<at::Tensor>& arguments, const Setting& setting,
                       Tape* tape) const;
  std::string failing_example(const ParameterSet& theta, const std::vector<at::Tensor>& arguments,
                              const Setting& setting, const Batch& batch) const;
  const std::vector<c10::IValue>& fixed_inputs(const Setting& setting) const;
  at::Tensor run(const ParameterSet& theta, const std::vector<at::Tensor>& arguments, const Setting& setting,
                 NodeRunner* runner, const OneByOne* examples = nullptr) const;
  at::Tensor run_one_by_one(const ParameterSet& theta, const std::vector<at::Tensor>& arguments, const Setting& setting,
                            Tape* tape) const;
  Setting setting_of(const ParameterSet& theta) const;
  double copied_percent() const;
  const ProgramLayer* last_layer() const;

  const FrozenProgram* frozen_in(const ParameterSet& theta, const NodeRunner* runner) const;

  ExportedOptions options_;
  std::filesystem::path file_;
  ProgramSignature signature_;
  std::unique_ptr<const Program> program_;
  std::unique_ptr<const FrozenProgram>
      frozen_;  ///< By what the file says is trained; null: nothing of weight is frozen.
  std::unique_ptr<const FrozenProgram>
      frozen_body_;  ///< Where the head alone is trained; null as well where there is none.
  mutable KeptValues kept_;
  std::vector<std::string> parameter_of_input_;
  ProgramLayers layers_;
  ParameterSet theta_;  ///< As the file has it.
  std::map<std::string, at::Tensor> buffers_;
  at::ScalarType dtype_ = at::kFloat;
  std::size_t chosen_ = 0;  ///< Of the outputs.
  bool no_layers_ = false;
  std::string why_no_layers_;
  std::int64_t vocabulary_ = 0;
  std::vector<std::string> notes_, arguments_, classes_;
  std::vector<double> means_, deviations_;
  mutable std::mutex mutex_;
  mutable std::map<std::pair<at::ScalarType, std::string>, std::vector<c10::IValue>> fixed_;
};

}  // namespace whence::detail
