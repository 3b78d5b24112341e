#include <fmt/format.h>

#include <filesystem>
#include <functional>
#include <limits>
#include <stdexcept>

#include "models/exports.h"
#include "support/near.h"
#include "support/scratch.h"
#include "support/stored_zip.h"
#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/models/exported/detail/zip.h"
#include "whence/models/model.h"

namespace whence::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Place = Json::json_pointer;

const std::string kProgram = "models/model.json", kWeights = "data/weights/model_weights_config.json";

/// Every value within, and the whole.
std::vector<Place> places(const Json& json) {
  std::vector<Place> out;
  std::function<void(const Json&, const Place&)> add = [&](const Json& part, const Place& at) {
    out.push_back(at);
    if (part.is_structured()) {
      for (const auto& [key, value] : part.items()) {
        add(value, part.is_array() ? at / std::stoul(key) : at / key);
      }
    }
  };
  add(json, Place());
  return out;
}

/// A small model's file, with one member changed at a time.
class Changed {
 public:
  Changed() {
    const whence::detail::Zip zip(test::kExports / "mlp.pt2");
    for (const auto& name : zip.names()) {
      members_.emplace_back("m/" + name, zip.text(name));
    }
  }
  Json json(const std::string& name) const {
    for (const auto& [member, text] : members_) {
      if (member == "m/" + name) {
        return parse_json(text, name);
      }
    }
    throw std::runtime_error("no member " + name);
  }
  /// What is said of it; nothing where it is a model. Anything but an Error of one line fails.
  std::string refusal(const std::string& name, const Json& json) {
    auto members = members_;
    for (auto& [member, text] : members) {
      text = member == "m/" + name ? json.dump() : text;
    }
    const auto path = scratch_.put("changed.pt2", stored_zip(members));
    try {
      create<Model>("exported:file=" + path.string());
    } catch (const Error& error) {
      const std::string text = error.what();
      CHECK_MESSAGE(text.find('\n') == text.npos, text);
      CHECK_FALSE(text.empty());
      return text;
    }
    return {};
  }

 private:
  Scratch scratch_;
  std::vector<std::pair<std::string, std::string>> members_;
};

TEST_SUITE_BEGIN("models");

TEST_CASE("exported models: whatever stands at a place of the file, it is refused in one line or is a model still") {
  Changed file;
  const std::vector<Json> others{-1,
                                 0,
                                 std::int64_t{1} << 20,
                                 std::numeric_limits<std::int64_t>::max(),
                                 1e308,
                                 nullptr,
                                 true,
                                 "../../../etc/passwd",
                                 "a/b\nc",
                                 std::string(10'000, 'x'),
                                 Json::array(),
                                 Json::object()};
  std::size_t tried = 0, refused = 0;
  for (const auto& member : {kProgram, kWeights}) {
    const auto json = file.json(member);
    for (const auto& place : places(json)) {
      CAPTURE(place.to_string());
      auto changed = json;
      changed[place] = others[tried % others.size()];
      refused += file.refusal(member, changed).empty() ? 0 : 1;
      ++tried;
    }
  }
  CHECK(tried >= 400);
  CHECK(refused >= 150);  // others are of no consequence: metadata, strides as they were seen
  CHECK(file.refusal(kProgram, file.json(kProgram)).empty());
}

TEST_CASE(
    "exported models: many unused values are read; outputs without end and graphs within each other are refused") {
  Changed file;
  constexpr int kMany = 5000;
  auto values = file.json(kProgram), nodes = values;
  auto& graph = nodes["graph_module"]["graph"];
  for (int i = 0; i < kMany; ++i) {
    const auto name = fmt::format("unused_{}", i);
    values["graph_module"]["graph"]["tensor_values"][name] = graph["tensor_values"]["tanh"];
    graph["nodes"].push_back(graph["nodes"][1]);
    graph["nodes"].back()["outputs"][0]["as_tensor"]["name"] = name;
  }
  CHECK(file.refusal(kProgram, values).empty());
  CHECK(file.refusal(kProgram, nodes).empty());
  auto many = file.json(kProgram);
  many["unused"] = std::vector<int>(1000000, 1);
  CHECK(file.refusal(kProgram, many).find(" values, expected at most 1000000") != std::string::npos);
  auto names = file.json(kProgram);
  names["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = std::string(1000000, '[');
  CHECK(file.refusal(kProgram, names).find("out_spec: 1000001 values") != std::string::npos);
  auto wide = file.json(kProgram);
  for (auto* list : {&wide["graph_module"]["graph"]["outputs"], &wide["graph_module"]["signature"]["output_specs"]}) {
    list->insert(list->end(), 1000, Json(list->front()));
  }
  CHECK(file.refusal(kProgram, wide).find("gives 1001, expected at most 1000") != std::string::npos);
  auto deep = file.json(kProgram);
  const auto innermost = deep["graph_module"]["graph"];
  for (int i = 0; i < 17; ++i) {
    auto around = innermost;
    around["nodes"][1]["target"] = "torch.ops.higher_order.wrap_with_set_grad_enabled";
    around["nodes"][1]["inputs"] = {
        {{"name", "enabled"}, {"arg", {{"as_bool", true}}}, {"kind", 1}},
        {{"name", "graph"},
         {"arg", {{"as_graph", {{"name", "graph"}, {"graph", deep["graph_module"]["graph"]}}}}},
         {"kind", 1}},
        {{"name", "x"}, {"arg", {{"as_tensor", {{"name", "linear"}}}}}, {"kind", 1}}};
    deep["graph_module"]["graph"] = around;
  }
  CHECK(file.refusal(kProgram, deep).find("more than 16 graphs within each other") != std::string::npos);
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
