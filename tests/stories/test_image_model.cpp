// A stranger's first command on an image model: a network that PyTorch trained for three epochs with Adam
// (make_mnist.py), scored without a flag, against Gauss-Newton scores that PyTorch solved for in double.
#include <chrono>
#include <map>

#include "support/near.h"
#include "support/tool.h"
#include "whence/data/safetensors.h"
#include "whence/evaluate/statistics.h"
#include "whence/store/score_store.h"

using namespace whence;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

const fs::path kImages = fs::path(WHENCE_SHARED) / "data/image";
const fs::path kHere = fs::path(WHENCE_TESTS) / "stories";

/// mnist.toml: the network that make_mnist.py trained, the first `examples` of its data and the first `queries` of
/// others.
void write_pipeline(const ToolFolder& folder, std::int64_t examples, std::int64_t queries) {
  folder.write("mnist.toml",
               fmt::format(R"([model]
spec = "mlp:widths=64,activation=relu"
[[stage]]
name = "digits"
train = {{ format = "idx", images = "{0}/mnist-train20k-images-idx3-ubyte.gz", labels = "{0}/mnist-train20k-labels-idx1-ubyte.gz", limit = {1} }}
checkpoint = "{2}"
[queries.test]
data = {{ format = "idx", images = "{0}/mnist-t10k-images-idx3-ubyte.gz", labels = "{0}/mnist-t10k-labels-idx1-ubyte.gz", limit = {3} }}
)",
                           kImages.string(), examples, (kHere / "mnist_mlp.safetensors").string(), queries));
}

}  // namespace

TEST_SUITE_BEGIN("stories");

TEST_CASE("the first ranking of an image model from PyTorch ends within a minute and orders as exact scores do") {
  if (!fs::exists(kImages)) {
    MESSAGE("skipped: no ", kImages.string());
    return;
  }
  const auto truth = read_safetensors(kHere / "mnist_scores.safetensors");
  const auto told = read_safetensors_metadata(kHere / "mnist_scores.safetensors");
  const ToolFolder folder;
  write_pipeline(folder, std::stoll(told.at("examples")), truth.at("scores").size(0));
  const auto start = std::chrono::steady_clock::now();
  const auto result = folder.run("rank mnist.toml --stage digits --queries test --out out");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  MESSAGE("ended after ", seconds, " s");
  CHECK(seconds < 60);
  CHECK(result.err.find("whence: curvature gauss-newton, solver cg, damping 1 x mean eigenvalue (") !=
        std::string::npos);
  const auto run = folder.json("out/run.json");
  CHECK(run["stages"]["digits"]["mean-eigenvalue"].get<double>() ==
        doctest::Approx(std::stod(told.at("mean-eigenvalue"))).epsilon(0.05));
  const auto scores = read_scores(folder / "out").stages[0].scores.to(at::kDouble);
  const auto kept = scores.index_select(1, truth.at("example-ids")).contiguous();
  for (std::int64_t q = 0; q < kept.size(0); ++q) {
    const auto expected = truth.at("scores")[q].to(at::kDouble).contiguous();
    const auto n = static_cast<std::size_t>(expected.numel());
    const double rho = spearman({kept[q].const_data_ptr<double>(), n}, {expected.const_data_ptr<double>(), n});
    MESSAGE("query ", q, ": Spearman ", rho, ", relative error ", test::relative_error(kept[q], expected));
    CHECK(rho > 0.99);
  }
}

TEST_CASE("the same model with --dtype bfloat16 orders as float64 does, or says that it cannot and what can") {
  if (!fs::exists(kImages)) {
    MESSAGE("skipped: no ", kImages.string());
    return;
  }
  const ToolFolder folder;
  for (const auto& [examples, solver] : {std::pair{300, "woodbury"}, std::pair{1000, "cg"}}) {
    CAPTURE(examples);
    write_pipeline(folder, examples, 3);
    std::map<std::string, at::Tensor> scores;
    for (const std::string dtype : {"float64", "bfloat16"}) {
      const auto out = fmt::format("{}-{}", dtype, examples);
      const auto result = folder.run(fmt::format("score mnist.toml --dtype {} --out {}", dtype, out));
      CAPTURE(result.err);
      REQUIRE(result.status == 0);
      CHECK(result.err.find(fmt::format("solver {}, ", solver)) != std::string::npos);
      const auto run = folder.json(out + "/run.json");
      const auto& told = run["stages"]["digits"];
      CHECK(told["residual-of"] == "gauss-newton");
      CHECK(told["largest-relative-residual"].get<double>() < 0.2);
      if (told["unconverged-solves"] > 0) {
        CHECK(result.err.find("in bfloat16 leaves a residual of") != std::string::npos);
        CHECK(result.err.find("use --dtype float32") != std::string::npos);
      }
      if (dtype == "bfloat16") {
        CHECK(run["verdict"].get<std::string>().find("can be trusted") == std::string::npos);
      }
      scores[dtype] = read_scores(folder / out).stages[0].scores.to(at::kDouble);
    }
    for (std::int64_t q = 0; q < 3; ++q) {
      const auto exact = scores["float64"][q].contiguous(), rough = scores["bfloat16"][q].contiguous();
      const auto n = static_cast<std::size_t>(exact.numel());
      const double rho = spearman({exact.const_data_ptr<double>(), n}, {rough.const_data_ptr<double>(), n});
      MESSAGE(examples, " examples, query ", q, ": Spearman ", rho, ", relative error ",
              test::relative_error(rough, exact));
      CHECK(rho > 0.9);
    }
  }
}

TEST_SUITE_END();
