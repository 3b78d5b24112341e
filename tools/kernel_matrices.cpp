#include "kernel_matrices.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/version.h>

#include "whence/core/digest.h"
#include "whence/core/error.h"
#include "whence/core/progress.h"
#include "whence/data/dataset_digest.h"
#include "whence/data/safetensors.h"
#include "whence/store/result_folder.h"
#include "whence/store/score_store.h"
#include "whence/training/objective_digest.h"
#include "whence/version.h"

namespace whence::cli {
namespace fs = std::filesystem;

at::Tensor KernelJob::shaped(const at::Tensor& values) const {
  const auto c = plan.outputs;
  return values.view({rows.size(), c, (columns ? *columns : rows).size(), c});
}

std::string matrix_key(const KernelJob& job) {
  const auto& point = job.point;
  Digest digest;
  digest.add(WHENCE_VERSION).add(TORCH_VERSION).add(job.spec).add(job.outputs).add(objective_digest(point.objective));
  for (const auto& parameter : point.names) {
    digest.add(parameter);
  }
  for (const auto* values : {&point.theta, &point.parent}) {
    digest.add(std::to_string(values->size()));
    for (const auto& value : *values) {
      digest.add(value).add(value.device().str());
    }
  }
  digest.add(dataset_digest(job.rows)).add(job.columns ? dataset_digest(*job.columns) : "");
  return digest.text();
}

at::Tensor make_matrix(const KernelJob& job, const fs::path& work, const std::string& run, const Progress& progress) {
  const auto folder = work / job.name;
  const auto file = folder / "made.safetensors";
  const auto c = job.plan.outputs;
  fs::create_directories(folder);
  if (!fs::exists(file)) {
    fs::create_directories(folder / "blocks");
    ScoreStore store(folder / "blocks", {{"scores", at::arange((job.columns ? *job.columns : job.rows).size() * c)}},
                     at::arange(job.rows.size() * c), at::kDouble);
    const auto named = [&](ProgressEvent event) {
      event.phase = fmt::format("kernel {}, {}", job.name, event.phase);
      report(progress, event);
    };
    make_kernel(*job.kernel, job.point, job.rows, job.columns ? &*job.columns : nullptr, job.plan, store.sink("scores"),
                named);
    store.write(file, run);
  }
  return job.shaped(read_scores(file).stages.at(0).scores.clone());
}

void write_matrices(const fs::path& path, const std::vector<KernelJob>& jobs, const KernelMatrices& matrices,
                    const std::string& run) {
  ParameterSet tensors;
  std::map<std::string, std::string> metadata{{"key", run}};
  for (const auto& job : jobs) {
    if (job.kept) {
      tensors.add(job.name, matrices.at(job.name));
      metadata[job.name] = job.key;
    }
  }
  write_safetensors(path, tensors, metadata);
}

KernelMatrices kept_matrices(const fs::path& folder, const std::vector<KernelJob>& jobs) {
  KernelMatrices out;
  try {
    const auto file = Result(folder).file(kMatricesFile);
    const auto metadata = read_safetensors_metadata(file);
    const auto tensors = read_safetensors(file);
    for (const auto& job : jobs) {
      const auto of = metadata.find(job.name);
      if (job.kept && of != metadata.end() && of->second == job.key) {
        out[job.name] = job.shaped(tensors.at(job.name).clone());
      }
    }
  } catch (const DataError&) {
    out.clear();
  }
  return out;
}

}  // namespace whence::cli
