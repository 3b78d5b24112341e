// `whence init`: what it writes runs.
#include "../tools/draft.h"
#include "models/exports.h"
#include "support/tool.h"
#include "whence/core/quoted.h"

using namespace whence;
using test::check_fails;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

/// weights.safetensors: two layers with 6 units between, as an nn.Sequential names them whose first layer is at
/// `first`.
void write_sequential(const ToolFolder& folder, int first, std::int64_t inputs, std::int64_t outputs) {
  auto draws = Random(4);
  ParameterSet weights;
  const auto add = [&](int place, std::int64_t in, std::int64_t out) {
    weights.add(fmt::format("{}.weight", place), draws.normal({out, in}).to(at::kFloat));
    weights.add(fmt::format("{}.bias", place), draws.normal({out}).to(at::kFloat));
  };
  add(first, inputs, 6);
  add(first + 2, 6, outputs);
  write_safetensors(folder / "weights.safetensors", weights);
}

/// Runs what init says to type next, with `flags` behind every command; returns what it printed. By bash, where it is
/// to read names that have to be quoted for it.
std::string check_next(const ToolFolder& folder, const std::string& arguments, const std::string& flags = " --quiet",
                       bool by_bash = false) {
  CAPTURE(arguments);
  const auto run = [&](const std::string& line) { return by_bash ? folder.start("true", line) : folder.run(line); };
  const auto made = run("init " + arguments);
  CAPTURE(made.err);
  CAPTURE(made.out);
  REQUIRE(made.status == 0);
  const auto place = made.out.find("\nnext: ");
  REQUIRE(place != made.out.npos);
  std::string next = made.out.substr(place + 7);
  next.pop_back();
  std::vector<std::string> commands{next.substr(0, next.find(" && "))};
  if (commands[0].size() < next.size()) {
    commands.push_back(next.substr(commands[0].size() + 4));
  }
  for (const auto& command : commands) {
    CAPTURE(command);
    REQUIRE(command.starts_with("whence "));
    const auto result = run(command.substr(7) + flags);
    CAPTURE(result.err);
    REQUIRE(result.status == 0);
  }
  return made.out;
}

void put_big_endian(std::string& bytes, std::int64_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    bytes += static_cast<char>((value >> shift) & 0xFF);
  }
}

/// `count` images of 4 x 4 bytes, lighter in class 1, and their labels, named as MNIST's are.
void write_idx(const ToolFolder& folder, const std::string& name, std::int64_t count) {
  std::string images(std::string("\0\0\x08\x03", 4)), labels(std::string("\0\0\x08\x01", 4));
  for (const auto side : {count, std::int64_t{4}, std::int64_t{4}}) {
    put_big_endian(images, side);
  }
  put_big_endian(labels, count);
  for (std::int64_t i = 0; i < count; ++i) {
    labels += static_cast<char>(i % 2);
    for (int pixel = 0; pixel < 16; ++pixel) {
      images += static_cast<char>((i * 37 + pixel * 11) % 100 + 100 * (i % 2));
    }
  }
  folder.write(name + "-images-idx3-ubyte", images);
  folder.write(name + "-labels-idx1-ubyte", labels);
}

/// The fixture NAME.pt2 of tests/models/exported, in the folder.
void take_export(const ToolFolder& folder, const std::string& name) {
  fs::copy_file(test::kExports / (name + ".pt2"), folder / (name + ".pt2"));
}

/// Examples with these targets, of the shape that the fixture convnet takes, or another.
void write_images(const ToolFolder& folder, const std::string& name, const at::Tensor& targets,
                  std::vector<std::int64_t> shape = {2, 6, 6}) {
  auto draws = Random(5);
  ParameterSet tensors;
  shape.insert(shape.begin(), targets.size(0));
  tensors.add("inputs", draws.normal(shape).to(at::kFloat));
  tensors.add("targets", targets);
  write_safetensors(folder / name, tensors);
}

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("init: an exported model, its weights as they are, on tensors, values, marks and several inputs") {
  const ToolFolder folder;
  take_export(folder, "convnet");
  const auto classes = at::arange(24, at::kLong).remainder(3);
  write_images(folder, "images.safetensors", classes);
  write_images(folder, "images_test.safetensors", classes.narrow(0, 0, 3));
  const std::string flags = " --quiet --method grad-dot";
  const auto said = check_next(folder, "convnet.pt2 images.safetensors images_test.safetensors", flags);
  CHECK(said.find("the weights of convnet.pt2 as they are, as if trained on images.safetensors by cross-entropy") !=
        said.npos);
  CHECK(said.find("next: whence rank images.toml --limit-queries 3 --out result\n") !=
        said.npos);  // nothing is to be trained
  const auto text = folder.read("images.toml");
  CHECK(text.find("exported = \"convnet.pt2\"  # takes x [any, 2, 6, 6]\n# head = \"fc\"") != text.npos);
  CHECK(text.find("[queries.test]") != text.npos);

  const auto one_hot = at::one_hot(classes, 3);
  write_images(folder, "marks.safetensors", one_hot);
  CHECK(check_next(folder, "convnet.pt2 marks.safetensors --dtype float32", flags)
            .ends_with(" --limit-queries 3 --out result --dtype float32\n"));
  CHECK(folder.read("marks.toml").find("loss = \"binary-cross-entropy\"") != std::string::npos);
  write_images(folder, "values.safetensors", one_hot.to(at::kFloat) - 0.25);
  check_next(folder, "convnet.pt2 values.safetensors", flags);
  CHECK(folder.read("values.toml").find("loss = \"squared-error\"") != std::string::npos);

  take_export(folder, "two");  // x and y, 8 outputs
  auto draws = Random(6);
  ParameterSet tensors;
  tensors.add("x", draws.normal({9, 3}).to(at::kFloat));
  tensors.add("y", draws.normal({9, 2}).to(at::kFloat));
  tensors.add("targets", draws.normal({9, 8}).to(at::kFloat));
  write_safetensors(folder / "pairs.safetensors", tensors);
  check_next(folder, "two.pt2 pairs.safetensors", flags);
  CHECK(folder.read("pairs.toml").find("# takes x [any, 3], y [any, 2]") != std::string::npos);
}

TEST_CASE("rank: an exported model of texts ranks them, and marks no tokens") {
  const ToolFolder folder;
  take_export(folder, "gpt");
  ParameterSet tensors;
  tensors.add("tokens", at::arange(15, at::kLong).remainder(7).view({3, 5}));
  write_safetensors(folder / "texts.safetensors", tensors);
  const std::string table = "{ format = \"safetensors\", file = \"texts.safetensors\" }\n";
  folder.write("p.toml",
               "[model]\nexported = \"gpt.pt2\"\n[[stage]]\nname = \"fit\"\nloss = \"next-token\"\n"
               "checkpoint = \"gpt.pt2\"\ntrain = " +
                   table + "[queries.test]\ndata = " + table);
  const auto result = folder.run("rank p.toml --queries test --method grad-dot --quiet --out r");
  CAPTURE(result.err);
  CHECK(result.status == 0);
  CHECK(fs::exists(folder / "r/ranking.jsonl"));
}

TEST_CASE("init: an exported model that makes its own loss, of tensors without targets") {
  const ToolFolder folder;
  take_export(folder, "loss-inside");  // x [any, 3] and label [any]
  ParameterSet tensors;
  tensors.add("x", Random(7).normal({9, 3}).to(at::kFloat));
  tensors.add("label", at::arange(9, at::kLong).remainder(3));
  write_safetensors(folder / "labelled.safetensors", tensors);
  write_safetensors(folder / "labelled_test.safetensors", tensors);
  check_next(folder, "labelled.safetensors labelled_test.safetensors loss-inside.pt2", " --quiet");
  const auto shown = folder.run("rank labelled.toml --limit-queries 1 --top 2 --quiet --out shown");
  CAPTURE(shown.out);
  CHECK(shown.out.find("query 0: row 0 of labelled_test.safetensors; loss ") != shown.out.npos);  // it says no more
  for (const char* absent : {"predicts", "expected", "value", "cannot be trusted", "gauss-newton"}) {
    CHECK(shown.out.find(absent) == shown.out.npos);
  }
  CHECK(folder.read("shown/ranking.jsonl").find("prediction") == std::string::npos);
  const auto text = folder.read("labelled.toml");
  CHECK(text.find("loss = \"exported\"") != text.npos);
  CHECK(text.find("file = \"labelled_test.safetensors\", targets = \"none\"") != text.npos);
  auto compared = text;
  compared.replace(compared.find("\"exported\""), 10, "\"squared-error\"");
  folder.write("compared.toml", compared);
  CHECK(folder.run("rank compared.toml").err.find("targets = \"none\" is for a model that gives its loss itself") !=
        std::string::npos);
  take_export(folder, "two");
  ParameterSet pairs;
  pairs.add("x", Random(8).normal({9, 3}).to(at::kFloat));
  pairs.add("y", Random(9).normal({9, 2}).to(at::kFloat));
  write_safetensors(folder / "pairs.safetensors", pairs);
  check_fails(folder.run("init two.pt2 pairs.safetensors"), 1,
              "no tensor \"targets\" among x, y, and two.pt2 gives [any, 8]");
}

TEST_CASE("init: a model of one number: the logit of labels 0 and 1, else the value, of words neither") {
  const auto loss_of = [](const std::vector<std::string>& labels, std::int64_t dimensions, std::int64_t width) {
    ExportedFacts facts;
    facts.dimensions = dimensions;
    facts.width = width;
    facts.inputs = {{"x", "[any, 1]", "Float"}};
    facts.outputs = {{"", "", ""}};
    cli::Source model{.kind = cli::SourceKind::kExported, .path = "one.pt2", .program = facts};
    cli::Source table{.path = "rows.csv", .format = "csv", .columns = {"a", "label"}};
    for (std::size_t i = 0; i < labels.size(); ++i) {
      table.rows.push_back({std::to_string(i), labels[i]});
    }
    const auto text = cli::draft_pipeline({model, table}, "rows.toml").text;
    const auto begin = text.find("loss = \"") + 8;
    return text.substr(begin, text.find('"', begin) - begin);
  };
  for (const auto& [dimensions, width] : {std::pair(2, 1), std::pair(1, 0)}) {
    CHECK(loss_of({"0", "1", "1"}, dimensions, width) == "binary-cross-entropy");
    CHECK(loss_of({"0", "1", "2"}, dimensions, width) == "squared-error");
    CHECK_THROWS_WITH_AS(loss_of({"no", "yes", "yes"}, dimensions, width),
                         "rows.csv: the labels in column label are words, and one.pt2 gives one number: write them as "
                         "0 and 1, 1 for the class whose logit that is",
                         DataError);
  }
  CHECK(loss_of({"0", "1", "1"}, 2, 2) == "cross-entropy");

  const ToolFolder folder;
  take_export(folder, "loss-inside");  // gives [any]
  ParameterSet tensors;
  tensors.add("x", Random(7).normal({9, 3}).to(at::kFloat));
  tensors.add("label", at::arange(9, at::kLong).remainder(3));
  tensors.add("targets", at::arange(9, at::kFloat).remainder(2));
  write_safetensors(folder / "marked.safetensors", tensors);
  check_next(folder, "loss-inside.pt2 marked.safetensors", " --quiet --method grad-dot");
  CHECK(folder.read("marked.toml").find("loss = \"binary-cross-entropy\"") != std::string::npos);
}

TEST_CASE("init: tensors by other names, and files that Python alone reads") {
  const ToolFolder folder;
  take_export(folder, "two");  // x and y
  const auto write = [&](const std::string& name, const std::vector<std::string>& names) {
    ParameterSet tensors;
    for (const auto& tensor : names) {
      tensors.add(tensor, at::zeros({3, 2}));
    }
    write_safetensors(folder / name, tensors);
  };
  write("z.safetensors", {"x", "z", "targets"});
  check_fails(
      folder.run("init two.pt2 z.safetensors"), 1,
      "z.safetensors: no tensor y; the model takes x, y, and the file holds x, z, targets; did you mean z? call "
      "it y");
  write("none.safetensors", {"a", "b"});
  check_fails(folder.run("init two.pt2 none.safetensors"), 1, "no tensor x, y; the model takes x, y, and the file");
  write("labels.safetensors", {"x", "labels"});
  check_fails(folder.run("init labels.safetensors"), 1,
              "it holds x, labels, expected tensors called inputs and targets");
  write("both.safetensors", {"x", "y", "labels"});  // not a loss that it makes itself
  check_fails(folder.run("init two.pt2 both.safetensors"), 1,
              "no tensor targets; did you mean labels? call it targets");
  folder.write("net.pth", "PK");
  check_fails(folder.run("init net.pth labels.safetensors"), 1, "whence_export.save(model, x[:2], \"net.pt2\")");
}

TEST_CASE("init: what an exported model cannot be given") {
  const ToolFolder folder;
  take_export(folder, "convnet");
  take_export(folder, "masked");
  take_export(folder, "training");
  write_images(folder, "images.safetensors", at::arange(6, at::kLong).remainder(3));
  folder.write("notes.txt", "one two three");
  folder.write("reviews.csv", "review,stars\na fine film about nothing at all,1\nso dull that I slept,0\n");
  check_fails(folder.run("init convnet.pt2"), 2, "the training data is missing: whence init convnet.pt2 DATA");
  check_fails(folder.run("init convnet.pt2 masked.pt2 images.safetensors"), 2, "two models");
  check_fails(folder.run("init convnet.pt2 notes.txt"), 1, "convnet.pt2 takes x [any, 2, 6, 6], and this holds texts");
  check_fails(folder.run("init masked.pt2 reviews.csv"), 2, "whence init masked.pt2 TOKENIZER_DIR reviews.csv");
  check_fails(folder.run("init masked.pt2 images.safetensors"), 1, "");
  check_fails(folder.run("init training.pt2 images.safetensors"), 1, "model.eval()");
  take_export(folder, "residual");
  write_images(folder, "two.safetensors", at::arange(6, at::kLong).remainder(2));
  check_fails(folder.run("init two.safetensors residual.pt2 --out p.toml"), 1, "for argument x");  // [N, 2, 6, 6]
  CHECK_FALSE(fs::exists(folder / "p.toml"));
  write_images(folder, "three.safetensors", at::arange(6, at::kLong).remainder(3), {1, 5, 5});
  check_fails(folder.run("init three.safetensors residual.pt2 --out p.toml"), 1,
              "example 2 has label 2, expected one of 0 to 1: residual.pt2 has 2 outputs, and three.safetensors has 3 "
              "labels, 0, 1, 2: classes = […] lists the 2");
  CHECK(folder.read("p.toml").find("classes = [\"0\", \"1\", \"2\"] }  # list here the 2 classes of the outputs") !=
        std::string::npos);
}

TEST_CASE("init: the classes of an exported model without names are listed, in the order that it predicts") {
  const ToolFolder folder;
  take_export(folder, "mlp");  // 4 numbers, 3 outputs
  auto draws = Random(4);
  const auto x = 3 * draws.normal({60, 4});
  const auto model = test::open_export("mlp");
  const auto rows = at::arange(60, at::kLong);
  const auto output = model->output(model->initial({4}, 3, draws), {x, rows, rows, rows}, nullptr);
  const auto raised = (output - output.mean(0)).argmax(1);  // not all three are predicted
  const std::vector<std::string> names{"fox", "cat", "dog"};
  std::string table = "a,b,c,d,kind\n", two = table;
  for (std::int64_t i = 0; i < 60; ++i) {
    const auto label = static_cast<std::size_t>(raised[i].item<std::int64_t>());
    std::string row;
    for (std::int64_t k = 0; k < 4; ++k) {
      row += fmt::format("{:.6f},", x[i][k].item<double>());
    }
    table += row + names[label] + "\n";
    two += label == 2 ? "" : row + names[label] + "\n";
  }
  folder.write("animals.csv", table);
  check_next(folder, "mlp.pt2 animals.csv", " --quiet --method grad-dot");
  CHECK(folder.read("animals.toml")
            .find("classes = [\"fox\", \"cat\", \"dog\"] }  # the outputs in order, by what the "
                  "model predicts: right for ") != std::string::npos);
  folder.write("two.csv", two);
  check_fails(folder.run("init mlp.pt2 two.csv"), 1, "two.toml is written, where they are to be listed");
  CHECK(folder.read("two.toml").find("classes = [\"cat\", \"fox\"] }  # list here the 3 classes of the outputs") !=
        std::string::npos);
}

TEST_CASE("inspect: what an exported model takes and gives, and how much of it is in layers") {
  const ToolFolder folder;
  take_export(folder, "convnet");
  const auto told = nlohmann::json::parse(folder.run("inspect convnet.pt2 --json").out);
  CHECK(told["inputs"]["x"] == "[any, 2, 6, 6] Float");
  CHECK(told["parameters"]["numbers"] == 383);
  CHECK(told["head"].get<std::string>().starts_with("fc,"));
  CHECK(told["layers"]["convolution"] == 3);
  CHECK(told["layers"]["own"] == "100.0 % of the parameters' entries");
  take_export(folder, "two");
  const auto two = nlohmann::json::parse(folder.run("inspect two.pt2 --json").out);
  CHECK(two["layers"]["own"] == "87.5 % of the parameters' entries");
  CHECK(two["layers"]["by copies"] == nlohmann::json::array({"token"}));
  check_fails(folder.run("inspect pipeline.pt2"), 1, "pipeline.pt2");
}

TEST_CASE("train: the data of a stage that was trained elsewhere is read, and its faults told") {
  const ToolFolder folder;
  take_export(folder, "residual");
  write_images(folder, "images.safetensors", at::arange(6, at::kLong).remainder(2), {1, 5, 5});
  const auto pipeline = [&](const std::string& data) {
    folder.write("p.toml", fmt::format("[model]\nexported = \"residual.pt2\"\n[[stage]]\nname = \"fit\"\ntrain = {{ "
                                       "format = \"safetensors\", file = \"{}\" }}\ncheckpoint = \"residual.pt2\"\n",
                                       data));
  };
  pipeline("images.safetensors");
  const auto kept = folder.run("train p.toml");
  CHECK(kept.status == 0);
  CHECK(kept.out.find("has a checkpoint  from elsewhere") != kept.out.npos);
  write_images(folder, "larger.safetensors", at::arange(6, at::kLong).remainder(2));
  pipeline("larger.safetensors");
  check_fails(folder.run("train p.toml"), 1,
              "larger.safetensors: examples of shape [2, 6, 6] for argument x of residual.pt2, expected [1, 5, 5]");
  pipeline("nowhere.safetensors");
  check_fails(folder.run("train p.toml"), 1, "nowhere.safetensors");
}

TEST_CASE("init: a table, its label, ids and gaps; it trains, ranks, and is not written over") {
  const ToolFolder folder;
  std::string table = "id,name,age,work,income\n";
  for (int i = 0; i < 300; ++i) {
    table += fmt::format("{},\"Doe, J. {}\",{},{},{}\n", i, i, i % 7 == 0 ? "" : std::to_string(20 + i % 40),
                         i % 3 == 0 ? "private" : "state", i % 2 == 0 ? "low" : "high");
  }
  folder.write("people.csv", table);
  const auto said = check_next(folder, "people.csv");
  CHECK(said.find("300 examples of high, low") != said.npos);
  CHECK(said.find("label income, a class") != said.npos);
  CHECK(said.find("without the columns id, name") != said.npos);
  CHECK(said.find("their column's median") != said.npos);
  const auto text = folder.read("people.toml");
  check_fails(folder.run("init people.csv"), 1, "people.toml is there already");
  CHECK(folder.read("people.toml") == text);
  // numbers as labels are values; a test file makes queries
  folder.write("price.csv", "size,rooms,price\n1.5,2,10.5\n2.5,3,20.25\n3.5,3,28.125\n1.0,1,7.5\n");
  folder.write("price_test.csv", "size,rooms,price\n2.0,2,15.5\n");
  CHECK(check_next(folder, "price.csv price_test.csv --out p.toml").find("label price, a number") != std::string::npos);
  CHECK(folder.read("p.toml").find("[queries.test]") != std::string::npos);
}

TEST_CASE("init and inspect read tables as training does: separators, missing marks, quotes") {
  const ToolFolder folder;
  std::string table = "a;b;label\n";
  for (int i = 0; i < 40; ++i) {
    table += fmt::format("{};5\"{};{}\n", i % 9 == 0 ? "N/A" : std::to_string(i), i % 3, i % 2);
  }
  folder.write("semi.csv", table);
  const auto said = check_next(folder, "semi.csv");
  CHECK(said.find("label label, a class") != said.npos);
  CHECK(said.find("missing numbers are their column's median") != said.npos);
  const auto columns = nlohmann::json::parse(folder.run("inspect semi.csv --json").out)["columns"];
  CHECK(columns["a"].get<std::string>().ends_with("numbers, 35 different, 5 missing"));
  CHECK(columns["b"].get<std::string>().starts_with("words, 3 different: 14 × 5\"0"));
}

TEST_CASE("init: what is the label once more, by another name, is no input") {
  const ToolFolder folder;
  std::string table = "x,y,category,target,label_text\n";
  for (int i = 0; i < 40; ++i) {
    table += fmt::format("{},{}.5,c{},{},{}\n", i % 7, i, i % 4, i % 2, i % 2 == 0 ? "good" : "bad");
  }
  folder.write("copies.csv", table);
  const auto said = check_next(folder, "copies.csv");
  CHECK(said.find("label label_text, a class") != said.npos);
  CHECK(said.find("without the columns category, target;") != said.npos);  // y is a number like another
}

TEST_CASE("init: images, tensors, and the weights of a model that was trained elsewhere") {
  const ToolFolder folder;
  write_idx(folder, "train", 60);
  write_idx(folder, "t10k", 4);
  check_next(folder, "train-images-idx3-ubyte t10k-images-idx3-ubyte --out images.toml");
  CHECK(folder.read("images.toml").find("labels = \"t10k-labels-idx1-ubyte\"") != std::string::npos);
  const auto labels = folder.run("inspect train-labels-idx1-ubyte");
  CHECK(labels.status == 0);
  CHECK(labels.out.find("labels, which are read with their images") != std::string::npos);

  std::string records;
  for (int i = 0; i < 20; ++i) {
    records += static_cast<char>(i % 2);
    records += std::string(3072, static_cast<char>(50 * (i % 2) + i));
  }
  folder.write("data_batch_1.bin", records);
  check_next(folder, "data_batch_1.bin --out cifar.toml");

  check_next(folder, "pretrain.safetensors queries.safetensors --out tensors.toml");
  write_sequential(folder, 0, 4, 3);
  const auto said = check_next(folder, "weights.safetensors pretrain.safetensors queries.safetensors --out mlp.toml");
  CHECK(said.find("next: whence rank mlp.toml --limit-queries 3 --out result\n") != said.npos);
  CHECK(folder.read("mlp.toml").find("mlp:widths=6,activation=relu") != std::string::npos);
}

TEST_CASE("init: a model of texts, with texts and with labelled ones") {
  const auto model = fs::path(WHENCE_SHARED) / "models/stories260k";
  if (!fs::exists(model)) {
    MESSAGE("skipped: no ", model.string());
    return;
  }
  const ToolFolder folder;
  std::string corpus, labelled = "sentence\tlabel\n";
  for (int i = 0; i < 12; ++i) {
    corpus += fmt::format("{{\"text\": \"Once upon a time there was a {} who ran.\"}}\n", i % 2 == 0 ? "cat" : "dog");
    labelled +=
        fmt::format("the {} was {} today\t{}\n", i % 3 == 0 ? "day" : "night", i % 2 == 0 ? "good" : "bad", i % 2);
  }
  folder.write("stories.jsonl", corpus);
  folder.write("moods.tsv", labelled);
  auto said = check_next(folder, fmt::format("{} stories.jsonl", model.string()), " --quiet --method grad-dot");
  CHECK(said.find("next: whence rank stories.toml --limit-queries 3 --out result\n") !=
        said.npos);  // its weights are the stage's result
  said = check_next(folder, fmt::format("{} moods.tsv", model.string()), " --quiet --json");
  CHECK(said.find("column sentence of moods.tsv is classified into label") != said.npos);
}

TEST_CASE("init: files of any name, in the pipeline and in what is to be typed next") {
  const std::string table = "x,label\n1,a\n2,b\n3,a\n4,b\n";
  for (const std::string name : {"it's \"my\", \\own\n\x7f $HOME #1 caf\xc3\xa9 {}.csv", "-x.csv"}) {
    const ToolFolder folder;
    folder.write(name, table);
    check_next(folder, "-- " + shell_word(name), "", true);
  }
  const ToolFolder folder;
  fs::create_directories(folder / "my data");
  folder.write("my data/my table.csv", table);
  check_next(folder, "'my data/my table.csv'");
  CHECK(folder.read("my table.toml").find("file = \"my data/my table.csv\"") != std::string::npos);
  folder.write("caf\xe9.csv", table);
  check_fails(folder.run("init caf\xe9.csv"), 1, "its name is no UTF-8, which a pipeline file must be: rename it");
  CHECK_FALSE(fs::exists(folder / "caf\xe9.toml"));
}

TEST_CASE("init: images and the weights of an nn.Sequential") {
  const ToolFolder folder;
  write_idx(folder, "train", 40);
  write_idx(folder, "t10k", 4);
  write_sequential(folder, 1, 16, 2);  // behind a Flatten
  const auto said = check_next(folder, "weights.safetensors train-images-idx3-ubyte t10k-images-idx3-ubyte");
  CHECK(said.find("40 examples of 0, 1") != said.npos);
  CHECK(said.find("next: whence rank train-images-idx3-ubyte.toml --limit-queries 3 --out result\n") != said.npos);
}

TEST_CASE("init: columns that say nothing, or hold lists, are left out") {
  const ToolFolder folder;
  folder.write("same.csv", "a,c,e,label\n1,5,,x\n2,5,,y\n3,5,,x\n");
  CHECK(check_next(folder, "same.csv").find("without the columns c, e (c, e the same in every row)") !=
        std::string::npos);
  std::string lines;
  for (int i = 0; i < 6; ++i) {
    lines += fmt::format("{{\"a\": {}, \"tags\": [1, 2], \"mixed\": {}, \"label\": \"{}\"}}\n", i, i == 4 ? "{}" : "1",
                         i % 2 == 0 ? "x" : "y");
  }
  folder.write("lists.jsonl", lines);
  CHECK(check_next(folder, "lists.jsonl").find("without the columns mixed, tags") != std::string::npos);
  const auto columns = nlohmann::json::parse(folder.run("inspect lists.jsonl --json").out)["columns"];
  CHECK(columns["tags"] == "lists or objects, which no input can be");
}

TEST_CASE("init: what it cannot guess it says, and leaves nothing behind") {
  const ToolFolder folder;
  check_fails(folder.run("init nowhere.csv"), 1, "no such file or folder");
  check_fails(folder.run("init"), 2, "PATHS is missing");
  folder.write("reviews.csv", "review,stars\na fine film about nothing at all,1\nso dull that I slept,0\n");
  folder.write("notes.txt", "one two three");
  check_fails(folder.run("init notes.txt"), 2, "whence init MODEL_DIR notes.txt");
  folder.write("odd.xyz", "what");
  check_fails(folder.run("init odd.xyz"), 1, "not recognised");
  write_safetensors(folder / "resnet.safetensors", {{"layer1.0.conv1.weight", at::ones({4, 4, 3, 3})}});
  check_fails(folder.run("init resnet.safetensors one.csv"), 1, "not those with residual connections or norms");
  folder.write("ragged.csv", "a,b,label\n1,2,0\n3,4,5,6\n");
  folder.write("empty.csv", "");
  folder.write("blank.csv", "\n\n");
  folder.write("header.csv", "a,label\n");
  folder.write("alone.csv", "label\nx\ny\n");
  folder.write("constant.csv", "c,label\n5,x\n5,y\n");
  folder.write("one.csv", "a,label\n1,x\n2,x\n");
  folder.write("row.csv", "a,label\n1,x\n");
  folder.write("unlabelled.csv", "a,label\n1,\n2,\n");
  folder.write("null.jsonl", "{}\n");
  folder.write("list.jsonl", "{\"a\": [1], \"label\": \"x\"}\n{\"a\": [2], \"label\": \"y\"}\n");
  folder.write("empty.safetensors", "");
  folder.write("empty-images-idx3-ubyte", "");
  fs::create_directories(folder / "nothing");
  fs::create_directories(folder / "folder.csv");
  fs::create_directories(folder / "models");
  for (const char* model : {"models/one", "models/two"}) {
    fs::create_directories(folder / model);
    folder.write(std::string(model) + "/config.json", "{}");
  }
  for (const auto& [arguments, part] :
       {std::pair("ragged.csv", "line 3 has 4 columns, expected 3"), std::pair("empty.csv", "the file is empty"),
        std::pair("blank.csv", "no rows"), std::pair("header.csv", "no row follows the names of the columns"),
        std::pair("alone.csv", "no column besides label"),
        std::pair("constant.csv", "no column besides label can be an input: c the same in every row"),
        std::pair("unlabelled.csv", "line 2, column \"label\": no label"), std::pair("null.jsonl", "no columns"),
        std::pair("list.jsonl", "no column besides label can be an input: a holds lists or objects"),
        std::pair("empty.safetensors", "the file is empty"), std::pair("empty-images-idx3-ubyte", "the file is empty"),
        std::pair("nothing", "no config.json and no data files in that folder"),
        std::pair("folder.csv", "no config.json and no data files in that folder"),
        std::pair("models", "no config.json and no data files in that folder; models: one, two"),
        std::pair("nowhere/at/all.csv", "no such file or folder"),
        std::pair("price.csv/x", "no such file or folder")}) {
    CAPTURE(arguments);
    check_fails(folder.run(std::string("init ") + arguments + " --out p.toml"), 1, part);
    CHECK_FALSE(fs::exists(folder / "p.toml"));
  }
  for (const std::string name : {"one.csv", "row.csv"}) {  // after the note on columns
    const auto result = folder.run("init " + name + " --out p.toml");
    CAPTURE(result.err);
    CHECK(result.status == 1);
    CHECK(result.err.find("\nwhence: error: every label of " + name + " is \"x\"") != std::string::npos);
    CHECK_FALSE(fs::exists(folder / "p.toml"));
  }
  check_fails(folder.run("init models/one models/two one.csv"), 2, "two models, models/one and models/two: name one");
  check_fails(folder.run("init models/one"), 2, "the training data is missing: whence init models/one DATA");
}

TEST_SUITE_END();
