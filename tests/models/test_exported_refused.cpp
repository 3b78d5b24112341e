// Exported programs that are refused: no pure functions of their inputs, and files that nobody exported.
#include <fmt/format.h>

#include <functional>

#include "models/exports.h"
#include "support/scratch.h"
#include "support/stored_zip.h"
#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/models/exported/detail/zip.h"
#include "whence/models/exported/exported_model.h"

using namespace whence;
using namespace whence::test;
namespace fs = std::filesystem;

TEST_SUITE("models") {
  TEST_CASE("exported models: what is no pure function is refused with what mends it") {
    for (const auto& [name, why] :
         std::vector<std::pair<std::string, std::string>>{{"training", "model.eval()"},
                                                          {"dropout", "is in training mode: call model.eval()"},
                                                          {"mean-free", "examples see each other"},
                                                          {"noisy", "draws random numbers"},
                                                          {"watched", "model.eval()"},
                                                          {"fixed", "the batch is fixed"}}) {
      CAPTURE(name);
      const auto text = message_of<Error>([&] { open_export(name); });
      CHECK(text.find(why) != text.npos);
      CHECK(text.find('\n') == text.npos);
    }
    const auto notes = [](const std::string& name) {
      const auto model = open_export(name);
      const auto& list = dynamic_cast<const ExportedModel&>(*model).notes();
      return list.empty() ? std::string() : list.front();
    };
    CHECK(notes("decomposed").find("run_decompositions()") != std::string::npos);
    CHECK(notes("rounded").find("a backward of its own") != std::string::npos);
    CHECK(notes("mlp").empty());
    CHECK(notes("two").find("by a copy an example (token)") != std::string::npos);
    CHECK(notes("projected").find("one example at a time") != std::string::npos);
  }

  /// The fixture NAME with a text in one of its members replaced, as a file that is refused; what is said of it.
  std::string refusal(const std::string& name, const std::string& member, const std::string& from,
                      const std::string& to) {
    const whence::detail::Zip zip(kExports / (name + ".pt2"));
    std::vector<std::pair<std::string, std::string>> members;
    for (const auto& part : zip.names()) {
      auto data = zip.text(part);
      if (part == member) {
        REQUIRE(data.find(from) != data.npos);
        data.replace(data.find(from), from.size(), to);
      }
      members.emplace_back("m/" + part, data);
    }
    const Scratch scratch;
    scratch.put("m.pt2", stored_zip(members));
    return message_of<Error>([&] { open_export("m", "", scratch.folder()); });
  }

  TEST_CASE(
      "exported models: dropout of an attention, a mean loss and names that are not the outputs' are told as such") {
    const std::string value = R"({"name":"value","arg":{"as_tensor":{"name":"view_5"}},"kind":1})";
    CHECK(
        refusal("conv1", "models/model.json", value, value + R"(,{"name":"dropout_p","arg":{"as_float":0.1},"kind":1})")
            .find("has a dropout_p above 0: write dropout_p = p if self.training else 0") != std::string::npos);
    CHECK(refusal("named", "extra/whence.json", R"(["cat", "dog", "fox"])", R"(["cat", "dog"])")
              .find("it names 2 classes and has 3 outputs") != std::string::npos);
    const std::string reduction = R"({"name":"reduction","arg":{"as_int":)";
    CHECK(refusal("loss-inside", "models/model.json", reduction + "0", reduction + "1")
              .find("an output of one number for a batch of 2, expected one row an example: a loss inside the model is "
                    "one number an example: reduction=\"none\"") != std::string::npos);
  }

  TEST_CASE("exported models: a head that is no module is told those that are, once each") {
    const auto text = message_of<InvalidArgument>([] { open_export("convnet", ",head=classifier"); });
    CHECK(text.find("known: a, bn, b, depth, fc") != text.npos);
  }

  TEST_CASE("exported models: hostile files are refused in one line, and none is run") {
    const whence::detail::Zip zip(kExports / "mlp.pt2");
    std::vector<std::pair<std::string, std::string>> members;
    for (const auto& name : zip.names()) {
      members.emplace_back("m/" + name, zip.text(name));
    }
    const Scratch scratch;
    const auto refused = [&](const std::string& bytes) -> std::string {
      const auto path = scratch.put("hostile.pt2", bytes);
      try {
        create<Model>("exported:file=" + path.string());
      } catch (const Error& error) {
        const std::string text = error.what();
        CHECK(text.find('\n') == text.npos);
        return text;
      }
      return "";
    };
    CHECK(refused(stored_zip(members)).empty());
    /// The file with one member changed.
    const auto with = [&](const std::string& name, auto&& change) {
      auto changed = members;
      for (auto& [member, data] : changed) {
        if (member == "m/" + name) {
          change(data);
        }
      }
      return refused(stored_zip(changed));
    };
    /// The program or the weights' table with a text in it replaced.
    const auto replaced = [&](const std::string& name, const std::string& from, const std::string& to) {
      return with(name, [&](std::string& data) {
        const auto place = data.find(from);
        REQUIRE(place != data.npos);
        data.replace(place, from.size(), to);
      });
    };
    const std::string program = "models/model.json", weights = "data/weights/model_weights_config.json";
    const std::string node = "torch.ops.aten.tanh.default";
    for (const auto& [op, why] : std::vector<std::pair<std::string, std::string>>{
             {"torch.ops.aten.from_file.default", "that are not run"},
             {"torch.ops.aten.set_.source_Tensor", "that are not run"},
             {"torch.ops.aten._index_put_impl_.default", "that are not run"},
             {"torch.ops.aten.max_pool2d_with_indices_backward.default", "that are not run"},
             {"torch.ops.aten.segment_reduce.default", "that are not run"},
             {"torch.ops.aten.sparse_csr_tensor.crow_col_value_size", "that are not run"},
             {"torch.ops.aten.mkldnn_rnn_layer.default", "that are not run"},
             {"torch.ops.mine.twice.default", "torch.ops.mine.twice.default (tanh in 1)"},
             {"torch.ops.higher_order.while_loop", "that are not run"},
             {"os.system", "that are not run"},
             {"torch.ops.aten.bernoulli.default", "draws random numbers"},
             {"torch.ops.aten.mm.default", "without its argument mat2"}}) {
      CAPTURE(op);
      CHECK(replaced(program, node, op).find(why) != std::string::npos);
    }
    for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
             {"\"as_int\": 5", "\"as_int\": 5000000000"},
             {"\"as_int\": 5", "\"as_int\": -5"},
             {"\"as_int\": 5", "\"as_expr\": 5"},
             {"\"use_pickle\": false", "\"use_pickle\": true"},
             {"\"path_name\": \"weight_0\"", "\"path_name\": \"../../etc/passwd\""},
             {"\"storage_offset\": {\"as_int\": 0}", "\"storage_offset\": {\"as_int\": 9223372036854775807}"},
             {"\"dtype\": 7", "\"dtype\": 77"},
             {"\"layout\": 7", "\"layout\": 1"}}) {
      CAPTURE(to);
      CHECK_FALSE(replaced(weights, from, to).empty());
    }
    // many names, each of as much as a few bytes may be seen as
    CHECK(with(weights, [](std::string& data) {
            auto json = parse_json(data, "weights");
            auto entry = json["config"].begin().value();
            const auto sizes = [](std::int64_t size) {
              return nlohmann::json::array({nlohmann::json::object({{"as_int", size}})});
            };
            entry["tensor_meta"]["strides"] = sizes(0);
            for (int i = 0; i < 8; ++i) {
              entry["tensor_meta"]["sizes"] = sizes((1 << 22) - i);
              json["config"]["more" + std::to_string(i)] = entry;
            }
            data = json.dump();
          }).find("tensors of more than 2 times its") != std::string::npos);
    CHECK(replaced(program, "\"major\":8", "\"major\":9").find("schema version 9") != std::string::npos);
    CHECK_FALSE(with(program, [](std::string& data) { data.resize(data.size() / 2); }).empty());
    CHECK_FALSE(with(program, [](std::string& data) { data = std::string(4000, '['); }).empty());
    CHECK(with("archive_format", [](std::string& data) { data = "pt3"; }).find("expected pt2") != std::string::npos);
    auto pickled = members;
    pickled.emplace_back("m/data/weights/model.pt", "");
    CHECK(refused(stored_zip(pickled)).find("as a pickle") != std::string::npos);
    pickled.back().first = "m/" + program;
    CHECK(refused(stored_zip(pickled)).find("there twice") != std::string::npos);
    CHECK(refused(stored_zip({{"m/data.pkl", ""}})).find("torch.save") != std::string::npos);
    CHECK(refused(stored_zip({{"m/serialized_exported_program.json", ""}})).find("before 2.8") != std::string::npos);
    const auto whole = stored_zip(members);
    for (std::size_t size = 0; size < whole.size(); size += 97) {
      CHECK_FALSE(refused(whole.substr(0, size)).empty());
    }
    auto packed = whole;
    packed[8] = 8;  // deflated, says the first member; the directory counts
    packed[packed.find("PK\x01\x02") + 10] = 8;
    CHECK(refused(packed).find("compressed") != std::string::npos);
    Random random(3);
    for (int i = 0; i < 200; ++i) {  // a flipped byte is no fault, and almost always found
      auto flipped = whole;
      const auto place = random.stream(std::to_string(i)).uniform({1}, 0, static_cast<double>(whole.size()));
      flipped[static_cast<std::size_t>(place.item<double>())] ^= 0x10;
      CHECK_NOTHROW(refused(flipped));
    }
  }
}
