// The part of Pipeline that writes a stage's result as plain weights.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/core/json.h"
#include "whence/core/output.h"
#include "whence/data/sealed_safetensors.h"
#include "whence/models/addition.h"
#include "whence/models/checkpoint.h"
#include "whence/stages/pipeline.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

/// What a model computes with after a stage, as far as weights can say it.
struct PlainWeights {
  ParameterSet model;  ///< The body that is handed on, what folds folded, and the stage's head.
  ParameterSet head;
  ParameterSet before_texts;  ///< A prefix or a prompt, as its tuning trains it.
  std::string tuning;         ///< Which; empty: none.
};

PlainWeights plain_weights(const Stage& stage) {
  const auto head = stage.objective.model().head();
  const auto handed = stage.handed_on();
  PlainWeights out;
  if (stage.objective.inner() == nullptr) {  // or the head is the start of every task's
    out.head = stage.objective.tuning().plain_head(head, stage.objective.merge(stage.theta, stage.parent));
  }
  out.model = handed.without(kAddedPrefix).without(out.head).join(out.head);
  out.before_texts = handed.select(kAddedPrefix);
  for (std::size_t i = 0; i < out.before_texts.size(); ++i) {
    const auto& name = out.before_texts.names()[i];
    const bool prefix = name.find(".prefix_key.") != name.npos || name.find(".prefix_value.") != name.npos;
    const auto tuning = fmt::format("{}:length={}", prefix ? "prefix" : "prompt", out.before_texts.values()[i].size(0));
    if ((!prefix && !name.ends_with(".prompt")) || (!out.tuning.empty() && out.tuning != tuning)) {
      throw InvalidArgument(
          fmt::format("stage {}: {} cannot be folded into weights, and no format beside whence's holds it: the "
                      "checkpoints of the stages are all there is of it",
                      stage.name, name));
    }
    out.tuning = tuning;
  }
  return out;
}

}  // namespace

std::vector<fs::path> Pipeline::merge(std::size_t stage, const fs::path& out) const {
  const auto& description = file_.stages.at(stage);
  const auto refuse = [&](const std::string& why) {
    throw InvalidArgument(fmt::format("{}: {}, and is left as it is: name another place", out.string(), why));
  };
  const auto check_free = [&](const fs::path& place) {
    for (const auto& other : file_.stages) {
      if (fs::weakly_canonical(other.checkpoint) == fs::weakly_canonical(place)) {
        refuse(fmt::format("{} is the checkpoint of stage {}", place.filename().string(), other.name));
      }
    }
  };
  check_free(out);
  const bool file = out.extension() == ".safetensors";
  if (file != (language_model_ == nullptr)) {
    throw InvalidArgument(fmt::format("{}: expected {}", out.string(),
                                      file ? "a folder, as a model of texts is written" : "a .safetensors file"));
  }
  if (file && fs::exists(out) && !is_whence_checkpoint(out)) {
    refuse("it was not written by whence");
  }
  if (language_model_ != nullptr && fs::weakly_canonical(out) == fs::weakly_canonical(language_model_->directory())) {
    refuse("it is the model's own folder");
  }
  const c10::NoGradGuard no_gradient;
  const auto chain = load(stage + 1);
  const auto& last = chain.back();
  const auto plain = plain_weights(last);
  const auto classes = plain.head.empty() ? std::vector<std::string>() : last.objective.data().classes();
  make_folder(out.parent_path());
  const auto lock = OutputLock::beside(out);
  if (file) {
    std::map<std::string, std::string> metadata{
        {"whence", "1"}, {"stage", description.name}, {"model", model_spec_}, {"tuning", "full"}};
    metadata.merge(data_metadata(last.objective.data()));
    write_sealed(out, plain.model.to(options_.dtype, at::kCPU), metadata);
    return {out};
  }
  auto beside = out;
  beside += plain.tuning.starts_with("prefix") ? "-prefix" : "-prompt";
  if (!plain.tuning.empty()) {
    check_free(beside);
  }
  const std::map<std::string, std::string> metadata{{"stage", description.name}, {"tuning", plain.tuning}};
  language_model_->write_directory(out, plain.model, classes, metadata);
  if (plain.tuning.empty()) {
    return {out};
  }
  write_peft(beside, to_peft(plain.tuning, *model_, plain.head.join(plain.before_texts), plain.model, out), metadata);
  return {out, beside};
}

}  // namespace whence
