// `whence rank --spot-check` and the intervals that rest on it, and joined pages of rows that are alike.
#include "support/tool.h"

using namespace whence;
using test::check_fails;
using test::last_line;
using test::ToolFolder;
namespace fs = std::filesystem;

namespace {

bool shows(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Rows of 24 columns that differ in the last alone, if at all.
std::string wide_table(const std::vector<int>& last) {
  std::string out;
  for (int c = 0; c < 24; ++c) {
    out += fmt::format("c{},", c);
  }
  out += "answer\n";
  for (std::size_t r = 0; r < last.size(); ++r) {
    for (int c = 0; c < 23; ++c) {
      out += fmt::format("{},", c);
    }
    out += fmt::format("{},{}\n", last[r], r % 2 == 0 ? "yes" : "no");
  }
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("tools");

TEST_CASE("rank --spot-check retrains, gives intervals, and is refused where nothing can be retrained for") {
  const ToolFolder folder;
  REQUIRE(folder.run("train pipeline.toml --dtype float64 --quiet").status == 0);
  const std::string rank = "rank pipeline.toml --queries test --dtype float64 --quiet ";
  check_fails(folder.run(rank + "--stage all --spot-check 9"), 2, "name it in place of --stage all");
  check_fails(folder.run("rank pipeline.toml --stage pretrain --self --spot-check 9"), 2, "--self has none");
  check_fails(folder.run(rank + "--stage pretrain --spot-check 1"), 2,
              "--spot-check = 1, expected a whole number >= 2");
  check_fails(folder.run(rank + "--stage pretrain --spot-check-minutes 3"), 2, "say how many examples");
  const auto plain = folder.run(rank + "--stage finetune --out plain");
  CHECK(shows(plain.out, "intervals    none: they rest on retraining"));
  // of what is not kept: how it is made to be
  CHECK(last_line(folder.run(rank + "--stage finetune --method grad-dot").out)
            .ends_with("to check: rank again with --spot-check 20, or with --out DIR and then whence evaluate "
                       "pipeline.toml --scores DIR"));
  CHECK(last_line(folder.run(rank + "--stage all --method grad-dot").out)
            .ends_with("to check: rank again with --out DIR, then whence evaluate pipeline.toml --stage NAME --scores "
                       "DIR"));
  const auto result = folder.run(rank + "--stage finetune --spot-check 10 --out out");
  CAPTURE(result.err);
  REQUIRE(result.status == 0);
  const auto found = folder.json("out/evaluation.json");
  CHECK(found["examples"] == 10);
  CHECK(found["pearson"].get<double>() > 0.9);
  CHECK(folder.json("out/run.json")["verdict"] == found["verdict"]);
  CHECK(shows(result.out, found["verdict"].get<std::string>()));
  CHECK(shows(result.out, " 90 %"));
  // what settles nothing is told too
  const auto few = folder.run(rank + "--stage finetune --method grad-dot --spot-check 2 --out few");
  CAPTURE(few.err);
  REQUIRE(few.status == 0);
  const auto settles = folder.json("few/evaluation.json")["verdict"].get<std::string>();
  CHECK(settles.starts_with("too few to say"));
  CHECK(shows(last_line(few.out), "; retraining: " + settles));
  const auto first =
      nlohmann::json::parse(folder.read("out/ranking.jsonl").substr(0, folder.read("out/ranking.jsonl").find('\n')));
  const auto& entry = first["proponents"][0];
  CHECK(entry["removal-interval-90"][0].get<double>() < entry["removal-interval-90"][1].get<double>());
  const auto bank = [&] {
    return std::distance(fs::directory_iterator(folder / "out/bank"), fs::directory_iterator());
  };
  CHECK(bank() == 11);
  REQUIRE(fs::remove(*fs::directory_iterator(folder / "out/bank")));  // as where it was stopped before that one
  fs::remove_all(folder / "cut");
  fs::create_directory(folder / "cut");
  fs::copy(folder / "out/bank", folder / "cut/bank");
  const auto resumed =
      folder.run("rank pipeline.toml --queries test --dtype float64 --stage finetune --spot-check 10 --out cut");
  CHECK(shows(resumed.err, "spot-check: 1 retrainings"));
  CHECK(shows(resumed.err, "10 are there"));
  CHECK(folder.json("cut/evaluation.json")["points"] == found["points"]);
  const auto again = folder.run(rank + "--stage finetune --spot-check 10 --out out");  // finds all of it there
  CHECK(again.out == result.out);
  CHECK(folder.json("out/evaluation.json") == found);
  REQUIRE(folder.run("report out").status == 0);
  CHECK(shows(folder.read("out/report.html"), "raw interval"));
}

TEST_CASE("report joins rows by all of their columns and by id, and names two that nothing tells apart") {
  const ToolFolder folder;
  folder.write("train.csv", wide_table({1, 2, 3, 4, 5, 6, 7, 8}));
  const auto write = [&](const std::string& name, const std::vector<int>& last) {
    folder.write(name + ".csv", wide_table(last));
    folder.write(name + ".toml", fmt::format(R"([model]
spec = "linear"
[[stage]]
name = "fit"
train = {{ format = "csv", file = "train.csv", label = "answer", standardize = false }}
weight-decay = 1e-1
checkpoint = "run/fit.safetensors"
[queries.test]
data = {{ format = "csv", file = "{}.csv", label = "answer" }}
)",
                                             name));
    REQUIRE(folder.run("train " + name + ".toml --quiet").status == 0);
    REQUIRE(folder.run("rank " + name + ".toml --method grad-dot --quiet --out " + name + "-out").status == 0);
  };
  write("one", {5, 6});
  write("other", {7, 6});  // of the first 20 columns all rows are equal
  REQUIRE(folder.run("report one-out other-out --out page.html").status == 0);
  CHECK(shows(folder.read("page.html"), "of its 2 queries 1 are asked"));
  write("twice", {6, 9, 6});  // neither of its equal rows has the id 1
  check_fails(folder.run("report one-out twice-out --out page.html"), 1,
              "twice-out: its queries 0 and 2 are equal, and no id tells which is query 1");
  REQUIRE(folder.run("report twice-out twice-out --out page.html").status == 0);  // ids do
}

TEST_SUITE_END();
