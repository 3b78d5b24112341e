// Adapters as peft 0.21.2 writes them, and what it computes with them in double precision: make_peft_fixtures.py.
#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <set>

#include "models/language.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/models/checkpoint.h"
#include "whence/stages/stage.h"
#include "whence/tuning/peft.h"

using namespace whence;
using namespace whence::test;
namespace fs = std::filesystem;

namespace {

fs::path fixture(const std::string& name) { return fs::path(WHENCE_TESTS) / "tuning/peft" / name; }

std::vector<std::string> every_fixture() {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(fixture(""))) {
    out.push_back(entry.path().filename().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

/// A base and, as a stage behind it, an adapter on it.
struct Adapted {
  explicit Adapted(const std::string& name, const fs::path& folder, at::ScalarType dtype = at::kDouble,
                   Predicts predicts = Predicts::kTheLoss)
      : expected(read_safetensors(fixture(name) / "expected.safetensors")),
        base(checkpoint(read_json(fixture(name) / "adapter_config.json")["base_model_name_or_path"])),
        model(create<Model>("transformer:directory=" + base.string())),
        spec(peft_tuning(folder)) {
    const auto* language = dynamic_cast<const LanguageModel*>(model.get());
    const auto data = texts_of(expected, language->vocabulary(), predicts).to(dtype, at::kCPU);
    const auto* loss = data.target_kind() == TargetKind::kClasses ? "cross-entropy" : "next-token";
    for (const auto& [stage, tuning] : {std::pair<const char*, std::string>{"base", "full"}, {"tuned", spec}}) {
      chain.push_back(begin_stage(
          {.name = stage, .model = model, .loss = create<Loss>(loss), .tuning = create<Tuning>(tuning), .data = data},
          chain, Random(1)));
    }
    auto& last = chain.back();
    last.theta = read_peft(folder, *model, last.objective.trained(), parent(), "here").values();
  }
  const Stage& stage() const { return chain.back(); }
  ParameterSet parent() const { return stage().objective.parent_layout().with(stage().parent); }
  ParameterSet trained() const { return stage().objective.trained().with(stage().theta); }
  Batch all() const { return stage().objective.data().batch(0, stage().objective.data().size()); }
  at::Tensor output() const { return stage().objective.output(stage().theta, stage().parent, all()); }
  at::Tensor losses() const { return stage().objective.example_losses(stage().theta, stage().parent, all()); }

  ParameterSet expected;
  fs::path base;
  std::shared_ptr<const Model> model;
  std::string spec;
  Chain chain;
};

/// What peft computed, as outputs come here: a row a token, or a row a text.
at::Tensor expected_rows(const ParameterSet& expected) {
  const auto& logits = expected.at("logits");
  return logits.dim() == 2
             ? logits
             : logits.masked_select(expected.at("mask").to(at::kBool).unsqueeze(2)).view({-1, logits.size(2)});
}

/// A copy of a fixture that can be changed.
class Copy : public Scratch {
 public:
  explicit Copy(const std::string& name) : name_(name), config(read_json(fixture(name) / "adapter_config.json")) {
    fs::copy_file(fixture(name) / "adapter_model.safetensors", *this / "adapter_model.safetensors");
    write();
  }
  void write() const { put("adapter_config.json", config.dump()); }
  void set(const std::string& key, const nlohmann::json& value) {
    config[key] = value;
    write();
  }
  /// Tensors whose names hold `part` changed, or left out where `change` gives none.
  template <class Change>
  void change(const std::string& part, const Change& change_one) const {
    const auto all = read_safetensors(fixture(name_) / "adapter_model.safetensors");
    ParameterSet kept;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const auto value = all.names()[i].find(part) == std::string::npos ? all.values()[i] : change_one(all.values()[i]);
      if (value.defined()) {
        kept.add(all.names()[i], value);
      }
    }
    write_safetensors(*this / "adapter_model.safetensors", kept, {{"format", "pt"}});
  }
  /// What reading it throws, all in one line.
  std::string refusal() const {
    std::string text;
    try {
      const Adapted adapted(name_, folder());
    } catch (const Error& error) {
      text = error.what();
    }
    CHECK(text.find('\n') == std::string::npos);
    return text;
  }

 private:
  std::string name_;

 public:
  nlohmann::json config;
};

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Fixtures that come back in another form: what PEFT's says in its own is said in a plainer one.
const std::set<std::string> kPlainer = {"adalora", "adalora-pruned", "lora-bias-of-b", "p-tuning", "prefix-projected"};

}  // namespace

TEST_SUITE_BEGIN("tuning");

TEST_CASE("logits and losses of base and adapter are peft's") {
  const auto names = every_fixture();
  REQUIRE(names.size() >= 24);
  for (const auto& name : names) {
    CAPTURE(name);
    for (const auto dtype : {at::kDouble, at::kFloat}) {
      const Adapted adapted(name, fixture(name), dtype);
      // transformers' rotary frequencies are of float32
      const bool rotary = adapted.base.filename().string().starts_with("llama");
      const double tolerance = dtype == at::kFloat ? 1e-5 : rotary ? 1e-8 : 1e-10;
      CAPTURE(adapted.spec);
      CHECK(relative_error(adapted.losses(), adapted.expected.at("loss")) < tolerance);
      const bool classes = adapted.expected.contains("labels");
      const auto output =
          classes ? adapted.output() : Adapted(name, fixture(name), dtype, Predicts::kEverywhere).output();
      CHECK(relative_error(output, expected_rows(adapted.expected)) < tolerance);
    }
  }
}

TEST_CASE("what is written is what peft writes, and reads as what it was") {
  const char* kept = std::getenv("WHENCE_PEFT_OUT");  // for make_peft_fixtures.py --check
  const Scratch scratch;
  for (const auto& name : every_fixture()) {
    CAPTURE(name);
    const Adapted read(name, fixture(name), at::kFloat);
    const auto base = read.base.filename();
    const auto written = to_peft(read.spec, *read.model, read.trained(), read.parent(), base);
    const auto folder = (kept == nullptr ? scratch.folder() : fs::path(kept)) / name;
    write_peft(folder, written, {{"tuning", read.spec}});
    CHECK(is_adapter(folder));
    CHECK(is_whence_checkpoint(folder));
    CHECK(read_safetensors_metadata(folder / "adapter_model.safetensors").at("format") == "pt");
    const Adapted again(name, folder, at::kFloat);
    for (const auto& parameter : read.trained().names()) {
      CHECK(at::equal(again.trained().at(parameter), read.trained().at(parameter)));
    }
    if (kPlainer.count(name) > 0) {
      continue;
    }
    const auto theirs = read_safetensors(fixture(name) / "adapter_model.safetensors");
    const auto ours = read_safetensors(folder / "adapter_model.safetensors");
    for (std::size_t i = 0; i < theirs.size(); ++i) {
      CAPTURE(theirs.names()[i]);
      REQUIRE(ours.contains(theirs.names()[i]));
      CHECK(at::equal(ours.at(theirs.names()[i]), theirs.values()[i]));
    }
    for (const auto& parameter : ours.names()) {  // the whole head of a stage is trained, so BERT's pooler too
      CAPTURE(parameter);
      CHECK((theirs.contains(parameter) || holds(parameter, ".bert.pooler.")));
    }
    const auto config = read_json(fixture(name) / "adapter_config.json");
    const std::set<std::string> by_name = {"target_modules", "feedforward_modules", "modules_to_save", "rank_pattern",
                                           "alpha_pattern"};
    for (const auto& [key, value] : written.config.items()) {
      CAPTURE(key);
      REQUIRE(config.contains(key));
      CHECK((by_name.count(key) > 0 || config[key] == value));
    }
  }
}

TEST_CASE("the tuning is the file's, in the names that it gives layers") {
  const auto spec = [](const char* name) { return peft_tuning(fixture(name)); };
  CHECK(spec("lora-gpt2") == "lora:rank=2,alpha=3,rank-stabilised=false,dora=false,targets=c_attn+c_fc+c_proj");
  CHECK(holds(spec("lora-llama"), "rank-stabilised=true"));
  CHECK(holds(spec("lora-dora"), "dora=true"));
  CHECK(holds(spec("lora-patterns"),
              "ranks=model.layers.0.self_attn.v_proj:3+model.layers.1.mlp.down_proj:1+"
              "model.layers.1.self_attn.v_proj:3,alphas=model.layers.1.self_attn.q_proj:7"));
  CHECK(holds(spec("lora-bias-all"), ",also=bias"));
  CHECK(spec("ia3-gpt2") == "ia3:feedforward=mlp.c_proj,targets=c_attn+mlp.c_proj");
  CHECK(spec("prefix-llama") == "prefix:length=3,mlp=0");
  CHECK(spec("p-tuning") == "prompt:length=2");
  check_same_tuning("lora:rank=2,alpha=3", fixture("lora-gpt2"));
  check_same_tuning("lora:rank=2,alpha=3,targets=c_attn", fixture("lora-gpt2"));  // which the tensors tell
  CHECK_MESSAGE_HOLDS(InvalidArgument, "holds alpha = 3: leave tuning out",
                      check_same_tuning("lora:rank=2,alpha=16", fixture("lora-gpt2")));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "holds a lora", check_same_tuning("ia3", fixture("lora-gpt2")));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "rank-stabilised = true",
                      check_same_tuning("lora:rank=2,alpha=3", fixture("lora-llama")));
}

TEST_CASE("layers without a first part in their names are found") {
  const Copy copy("lora-bert");
  const auto all = read_safetensors(copy / "adapter_model.safetensors");
  ParameterSet shorter;
  for (std::size_t i = 0; i < all.size(); ++i) {
    auto name = all.names()[i];
    if (const auto at = name.find("bert."); at != name.npos) {
      name.erase(at, 5);  // as of an adapter that was trained on a BertModel
    }
    shorter.add(name, all.values()[i].clone());
  }
  write_safetensors(copy / "adapter_model.safetensors", shorter, {{"format", "pt"}});
  const Adapted adapted("lora-bert", copy.folder());
  CHECK(relative_error(adapted.losses(), adapted.expected.at("loss")) < 1e-10);
}

TEST_CASE("types, keys and values that are not computed are refused by name") {
  Copy copy("lora-gpt2");
  const auto refused = [&](const std::string& key, const nlohmann::json& value, const std::string& part) {
    const auto before = copy.config;
    copy.set(key, value);
    CAPTURE(copy.refusal());
    CHECK(holds(copy.refusal(), part));
    CHECK(holds(copy.refusal(), "adapter_config.json: " + key));
    copy.config = before;
    copy.write();
  };
  CHECK(copy.refusal().empty());
  refused("peft_type", "VERA", "peft_type = \"VERA\", expected one of ADALORA, BEFT, HIRA");
  refused("peft_type", 3, "peft_type = 3");
  refused("use_qalora", true, "use_qalora = true");
  refused("alora_invocation_tokens", {1, 2}, "alora_invocation_tokens = a list of 2");
  refused("layer_replication", {{0, 1}}, "layer_replication");
  refused("monteclora_config", {{"n", 1}}, "monteclora_config");
  refused("a_key_of_tomorrow", 0.5, "a_key_of_tomorrow = 0.5");
  refused("init_lora_weights", "pissa", "init_lora_weights = \"pissa\"");
  refused("lora_alpha", "x", "lora_alpha = \"x\"");
  copy.set("r", 3);
  CHECK(holds(copy.refusal(), "r = 3, but"));
  copy.set("r", 2);
  copy.set("use_dora", true);
  CHECK(holds(copy.refusal(), "use_dora = true, but the tensors hold no lora_magnitude_vector"));
  copy.set("use_dora", false);
  refused("alpha_pattern", {{"(", 2}}, "alpha_pattern");
  refused("alpha_pattern", {{"c_attn", "x"}}, "alpha_pattern.c_attn = \"x\", expected a number");
  refused("alpha_pattern", {{"(.*)*(.*)*\\d\\d\\d", 1}}, "a regular expression on");  // would take forever
  for (const auto& value : std::vector<nlohmann::json>{nullptr, false, 0, "", nlohmann::json::object()}) {
    copy.set("a_key_of_tomorrow", value);  // asks for nothing
    CHECK(copy.refusal().empty());
  }
  Copy gs("hra");
  gs.set("apply_GS", true);
  CHECK(holds(gs.refusal(), "apply_GS = true"));
}

TEST_CASE("damaged and hostile folders: one line") {
  const Copy copy("lora-gpt2");
  copy.put("adapter_config.json", std::string(100000, '['));
  CHECK(holds(copy.refusal(), "adapter_config.json"));
  copy.put("adapter_config.json", "[]");
  CHECK(holds(copy.refusal(), "adapter_config.json"));
  copy.put("adapter_config.json", R"({"peft_type": ["LORA"]})");
  CHECK(holds(copy.refusal(), "peft_type"));
  copy.write();
  copy.change("h.1.attn.c_attn.lora_B", [](const at::Tensor& value) { return value.slice(0, 1).clone(); });
  CHECK(holds(copy.refusal(),
              "tensor \"tuning.transformer.h.1.attn.c_attn.lora_B.weight\" has shape [47, 2], "
              "expected [48, 2]"));
  copy.change("h.1.attn.c_attn.lora_B", [](const at::Tensor&) { return at::Tensor(); });
  CHECK(holds(copy.refusal(), "tensor \"transformer.h.1.attn.c_attn.lora_B.weight\" is missing, beside lora_A"));
  copy.change("h.1.attn.c_attn.lora", [](const at::Tensor&) { return at::Tensor(); });  // a layer of those named
  CHECK(holds(copy.refusal(), "expected none that means transformer.h.1.attn.c_attn"));
  copy.change("lora_A", [](const at::Tensor&) { return at::zeros({}, at::kFloat); });
  CHECK(!copy.refusal().empty());
  copy.change("lora_A", [](const at::Tensor& value) { return value.to(at::kLong); });
  CHECK(holds(copy.refusal(), "dtype Long"));
  copy.change("lora", [](const at::Tensor& value) { return at::full_like(value, NAN); });
  CHECK(holds(copy.refusal(), "not finite"));
  copy.change("lora", [](const at::Tensor&) { return at::Tensor(); });
  CHECK(holds(copy.refusal(), "no tensor there is one of LORA"));
  fs::remove(copy / "adapter_model.safetensors");
  CHECK(holds(copy.refusal(), "adapter_model.safetensors is not there"));
  copy.put("adapter_model.bin", "x");
  CHECK(holds(copy.refusal(), "the weights are a pickle, adapter_model.bin"));
  const Copy prefix("prefix-llama");
  prefix.change("prompt", [](const at::Tensor& value) { return value.slice(1, 1).clone(); });
  CHECK(holds(prefix.refusal(), "has rows of 47, expected 48"));
  prefix.change("prompt", [](const at::Tensor& value) { return value.flatten().clone(); });
  CHECK(holds(prefix.refusal(), "is missing, or no matrix"));
}

TEST_CASE("what a folder cannot mean is refused before a model is looked at") {
  const auto refusal = [](const Copy& copy) { return message_of<DataError>([&] { peft_tuning(copy.folder()); }); };
  Copy copy("lora-gpt2");
  copy.set("lora_alpha", 0);
  CHECK(holds(refusal(copy), "adapter_config.json: lora: option alpha = 0, expected > 0"));
  copy.set("lora_alpha", 4);
  for (const auto& [lost, kept] : {std::pair("lora_A", "lora_B"), std::pair("lora_B", "lora_A")}) {
    copy.change(lost, [](const at::Tensor&) { return at::Tensor(); });
    CHECK(holds(refusal(copy), fmt::format("{}.weight\" is missing, beside {}.weight", lost, kept)));
  }
  copy.change("h.0", [](const at::Tensor& value) { return at::full_like(value, NAN); });
  CHECK(holds(refusal(copy), "is not finite"));
}

TEST_CASE("targets that are not those of the tensors are refused by the layer's name") {
  Copy copy("lora-gpt2");
  const auto says = [&](const nlohmann::json& targets, const std::string& part) {
    copy.set("target_modules", targets);
    CAPTURE(copy.refusal());
    CHECK(holds(copy.refusal(), part));
    CHECK(holds(copy.refusal(), "adapter_config.json: target_modules = "));
  };
  says({"c_attn", "c_fc"}, "expected one that means transformer.h.0.attn.c_proj, of which");
  says({"c_attn", "c_fc", "c_proj", "wpe"}, "expected none that means transformer.wpe, of which");
  says({"c_attn", "c_fc", "mlp.c_proj"}, "expected one that means transformer.h.0.attn.c_proj");
  says(".*attn.*", "expected one that means transformer.h.0.mlp.c_fc");
  says(".*(c_attn|c_fc|c_proj|ln_f)", "expected none that means transformer.ln_f");
  says("(", "expected a regular expression that can be read");
  for (const nlohmann::json& same : std::vector<nlohmann::json>{
           "all-linear", nullptr, ".*(c_attn|c_fc|c_proj)", {"c_attn", "c_fc", "c_proj", "q_proj"}}) {
    copy.set("target_modules", same);
    CHECK(copy.refusal().empty());
  }
  copy.set("exclude_modules", {"h.1.attn.c_attn"});
  copy.set("target_modules", {"c_attn", "c_fc", "c_proj"});
  CHECK(holds(copy.refusal(), "means transformer.h.1.attn.c_attn, of which"));
  copy.change("h.1.attn.c_attn.lora", [](const at::Tensor&) { return at::Tensor(); });
  CHECK(copy.refusal().empty());
  copy.set("exclude_modules", nullptr);
  CHECK(holds(copy.refusal(), "expected none that means transformer.h.1.attn.c_attn"));
}

TEST_CASE("what takes the place of the base's weights is refused unless it is trained whole") {
  const Copy copy("lora-gpt2");
  auto all = read_safetensors(copy / "adapter_model.safetensors").to(at::kFloat, at::kCPU);
  const auto base = read_safetensors(checkpoint("gpt2") / "model.safetensors");
  const auto with = [&](const at::Tensor& embedding) {
    auto more = all;
    more.add("base_model.model.transformer.wte.weight", embedding);
    write_safetensors(copy / "adapter_model.safetensors", more, {{"format", "pt"}});
    return copy.refusal();
  };
  CHECK(with(base.at("transformer.wte.weight").clone()).empty());  // a copy, as PEFT keeps of embeddings
  CHECK(holds(with(base.at("transformer.wte.weight") + 1), "takes the place of the base's"));
}

TEST_CASE("a tied embedding and tunings without a type of PEFT's are not written") {
  const Adapted adapted("lora-gpt2", fixture("lora-gpt2"));
  CHECK(has_peft_type("lora"));
  CHECK_FALSE(has_peft_type("hut"));
  CHECK_FALSE(has_peft_type("full"));
  const auto other = [&](const std::string& spec) {
    const auto& first = adapted.chain.front();
    const auto stage = begin_stage({.name = "other",
                                    .model = adapted.model,
                                    .loss = create<Loss>("next-token"),
                                    .tuning = create<Tuning>(spec),
                                    .data = first.objective.data()},
                                   {first}, Random(1));
    return message_of<InvalidArgument>(
        [&] { to_peft(spec, *adapted.model, stage.objective.trained(), adapted.parent(), ""); });
  };
  CHECK(other("lora:rank=1,also=bias").empty());
  CHECK(holds(other("lora:targets=wte"), "the embedding is the vocabulary's head too"));
  CHECK(holds(other("lora:targets=c_attn,also=h.0.mlp.c_fc.bias"), "PEFT trains all biases"));
  CHECK(holds(other("hra:rank=2,targets=c_attn"), "whose weights lie as [out, in]"));
  CHECK(holds(other("hra:rank=2,targets=c_attn"), "name a .safetensors file as checkpoint"));
}

TEST_SUITE_END();
