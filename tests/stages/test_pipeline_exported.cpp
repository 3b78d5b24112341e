#include <ATen/ATen.h>

#include "support/near.h"
#include "support/scratch.h"
#include "support/stored_zip.h"
#include "whence/models/exported/detail/zip.h"
#include "whence/stages/pipeline.h"

using namespace whence;
using test::Scratch;
namespace fs = std::filesystem;

namespace {

/// A model of images [1, 5, 5] whose file tells that they were scaled by 0.5 and 0.25, and three black and white
/// images.
void put_scaled_model(const Scratch& scratch) {
  const whence::detail::Zip zip(fs::path(WHENCE_TESTS) / "models/exported/residual.pt2");
  std::vector<std::pair<std::string, std::string>> members;
  for (const auto& name : zip.names()) {
    auto data = zip.text(name);
    for (const auto& [key, value] :
         {std::pair{"\"mean\": null", "\"mean\": [0.5]"}, {"\"std\": null", "\"std\": [0.25]"}}) {
      if (const auto place = data.find(key); name == "extra/whence.json" && place != data.npos) {
        data.replace(place, std::string(key).size(), value);
      }
    }
    members.emplace_back("m/" + name, data);
  }
  scratch.put("m.pt2", test::stored_zip(members));
  std::string images("\0\0\x08\x03\0\0\0\x03\0\0\0\x05\0\0\0\x05", 16), labels("\0\0\x08\x01\0\0\0\x03\0\1\1", 11);
  for (int i = 0; i < 75; ++i) {
    images.push_back(i % 2 == 0 ? '\0' : '\xff');
  }
  scratch.put("images", images);
  scratch.put("labels", labels);
}

Pipeline with(const Scratch& scratch, const std::string& more) {
  const std::string data = "{ format = \"idx\", images = \"images\", labels = \"labels\" }";
  auto train = data;
  train.insert(train.size() - 2, more);
  scratch.put("p.toml", "[model]\nexported = \"m.pt2\"\n[[stage]]\nname = \"a\"\ntrain = " + train +
                            "\ncheckpoint = \"m.pt2\"\n[queries.q]\ndata = " + data + "\n");
  return Pipeline(scratch / "p.toml", {.dtype = at::kDouble});
}

/// The first two values of the first image.
std::vector<double> values(const Dataset& data) {
  const auto x = data.batch(0, 1).inputs.flatten();
  return {x[0].item<double>(), x[1].item<double>()};
}

}  // namespace

TEST_SUITE_BEGIN("stages");

TEST_CASE("images are scaled as an exported model says, unless their table says otherwise, which is told") {
  const Scratch scratch;
  put_scaled_model(scratch);
  const auto silent = with(scratch, "");
  CHECK(values(silent.training_data(0)) == std::vector<double>{-2, 2});
  CHECK(values(silent.queries("q")) == std::vector<double>{-2, 2});
  CHECK(silent.notes().empty());
  const auto same = with(scratch, ", mean = [0.5], std = [0.25]");
  CHECK(values(same.training_data(0)) == std::vector<double>{-2, 2});
  CHECK(same.notes().empty());
  const auto other = with(scratch, ", mean = [0], std = [1]");
  CHECK(values(other.training_data(0)) == std::vector<double>{0, 1});
  CHECK(values(other.queries("q")) == std::vector<double>{0, 1});
  REQUIRE(other.notes().size() == 1);
  CHECK(other.notes()[0].find("was exported with mean = [0.5], std = [0.25]") != std::string::npos);
}

TEST_SUITE_END();
