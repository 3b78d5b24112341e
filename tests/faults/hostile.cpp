// Files of every format that a command reads, cut at each of their sections and with bits flipped, and the worst that
// can be written by hand: the command says what they hold or, in one line, why not; soon, and in little memory.
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <random>
#include <stdexcept>

#include "faults/scenarios.h"
#include "faults/scene.h"
#include "faults/tree.h"
#include "support/stored_zip.h"

namespace whence::faults {
namespace fs = std::filesystem;
namespace {

constexpr double kSoon = 5;                              // seconds of a processor
constexpr std::size_t kLittle = std::size_t{300} << 20;  // bytes beyond what the undisturbed command takes

std::string big_endian(unsigned value) {
  std::string out;
  for (const int shift : {24, 16, 8, 0}) {
    out += static_cast<char>(value >> shift & 255);
  }
  return out;
}

/// An idx file of bytes.
std::string idx(const std::vector<unsigned>& sizes) {
  std::string out{'\0', '\0', '\x08', static_cast<char>(sizes.size())};
  std::size_t entries = 1;
  for (const auto size : sizes) {
    out += big_endian(size);
    entries *= size;
  }
  for (std::size_t i = 0; i < entries; ++i) {
    out += static_cast<char>(sizes.size() == 1 ? i % 2 : i * 37 % 251);
  }
  return out;
}

std::string gzip(const std::string& text) {
  z_stream stream{};
  constexpr int kWindowOfGzip = 15 + 16, kMemory = 8;
  deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, kWindowOfGzip, kMemory, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string repeated(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) {
    out += text;
  }
  return out;
}

std::string with_header(const std::string& header, const std::string& data = {}) {
  const std::uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + header + data;
}

/// A file and a command that reads it.
struct Format {
  std::string name, file, line;
  std::vector<std::string> worst{};  // what else the file may be
};

constexpr const char* kExported = R"([model]
exported = "mlp.pt2"
[[stage]]
name = "fit"
train = { format = "safetensors", file = "exported.safetensors" }
checkpoint = "mlp.pt2"
loss = "squared-error"
[queries.test]
data = { format = "safetensors", file = "exported.safetensors" }
)";

const std::string kRank = "rank p.toml --stage finetune --method grad-dot --quiet --out fresh";

std::vector<Format> formats() {
  const std::string lists(100'000, '['), task = "{\"demonstrations\": ";
  std::string tensors;
  for (int i = 0; i < 20'000; ++i) {
    tensors += (i == 0 ? "{" : ",") + std::string("\"t") + std::to_string(i) +
               "\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}";
  }
  const std::string ones = repeated("1,", 40'000) + "1";
  const auto program = [](const std::string& graph) {
    return test::stored_zip({{"m/archive_format", "pt2"}, {"m/models/model.json", graph}});
  };
  std::vector<std::pair<std::string, std::string>> members;
  for (int i = 0; i < 50'000; ++i) {
    members.emplace_back("m/data/weights/" + std::to_string(i), "");
  }
  auto larger_than_the_file = program("{}");
  larger_than_the_file.replace(larger_than_the_file.rfind("PK\x01\x02") + 20, 8, 8, '\xff');
  return {
      {"safetensors",
       "data.safetensors",
       "inspect data.safetensors",
       {with_header(lists), with_header(tensors + "}"), std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
        with_header("{\"t\":{\"dtype\":\"F32\",\"shape\":[" + ones + "],\"data_offsets\":[0,4]}}", "abcd"),
        with_header("{\"t\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}")}},
      {"checkpoint", "run/finetune.safetensors", kRank},
      {"checkpoint of the parent", "run/pretrain.safetensors", kRank},
      {"csv",
       "pretrain.csv",
       "inspect pretrain.csv",
       {std::string(1 << 20, ','), std::string(1 << 20, '"'), std::string(1 << 20, '\n'), std::string(1000, '\0')}},
      {"csv that is trained on", "pretrain.csv", "train p.toml --force --quiet"},
      {"csv of queries", "queries.csv", kRank},
      {"tsv", "data.tsv", "inspect data.tsv"},
      {"jsonl", "data.jsonl", "inspect data.jsonl", {lists, repeated("{\"text\":", 50'000), "{\"text\":1e999}\n"}},
      {"text", "data.txt", "inspect data.txt", {std::string(1 << 20, 'a'), repeated("\xff\xfe", 1000)}},
      {"gzip", "data.csv.gz", "inspect data.csv.gz", {gzip(std::string(200 << 20, '1'))}},
      {"idx",
       "data-images-idx3-ubyte",
       "inspect data-images-idx3-ubyte",
       {std::string("\0\0\x08\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 16)}},
      {"cifar", "data.bin", "inspect data.bin"},
      {"exported program",
       "mlp.pt2",
       "inspect mlp.pt2",
       {program(lists), program("{\"a\":" + repeated("[{\"a\":", 300)), program("{}"), test::stored_zip(members),
        larger_than_the_file}},
      {"exported program that is run", "mlp.pt2", "score exported.toml --method grad-dot --quiet --out fresh"},
      {"pipeline",
       "p.toml",
       "inspect p.toml",
       {"a = " + lists, repeated("[a.b]\n", 1000), repeated("a.", 50'000) + "b = 1"}},
      {"pipeline that is trained", "p.toml", "train p.toml --quiet"},
      {"scores", "out/scores.safetensors", "inspect out"},
      {"run.json", "out/run.json", "report out --quiet", {lists, "{}", "[]", "{\"files\": {}, \"sha256\": \"\"}"}},
      {"ranking", "out/ranking.jsonl", "report out --quiet", {lists}},
      {"model's settings", "model/config.json", "inspect model", {lists, "{}"}},
      {"model's settings that are run", "model/config.json", "icl --model model --task task.json --quiet"},
      {"tokenizer", "model/tokenizer.json", "icl --model model --task task.json --quiet", {lists, "{}"}},
      {"model's weights", "model/model.safetensors", "icl --model model --task task.json --quiet"},
      {"task",
       "task.json",
       "icl --model model --task task.json --quiet",
       {task + lists, "{}", task + "[]}",
        task + "[{\"input\": \"a\", \"output\": \"" + repeated("a ", 100'000) + "\"}]}"}},
      {"pool", "pool.jsonl", "icl --model model --task task.json --select 2 --pool pool.jsonl --quiet", {lists}},
  };
}

class Files {
 public:
  explicit Files(const Settings& settings) : settings_(settings) {
    auto tree = scene();
    tree["data.safetensors"] = safetensors({{"inputs", {6, 4}}, {"targets", {6}}});
    tree["data.tsv"] = table(6, 1);
    std::replace(tree["data.tsv"].begin(), tree["data.tsv"].end(), ',', '\t');
    tree["data.jsonl"] = "{\"text\": \"good film\", \"label\": \"yes\"}\n{\"text\": \"sad end\", \"label\": \"no\"}\n";
    tree["data.txt"] = "good film\nsad end\n";
    tree["data.csv.gz"] = gzip(table(6, 1));
    tree["data-images-idx3-ubyte"] = idx({4, 3, 3});
    tree["data-labels-idx1-ubyte"] = idx({4});
    tree["data.bin"] = repeated(std::string(1, '\3') + std::string(3072, 'a'), 2);
    tree["mlp.pt2"] = bytes_of(fs::path(WHENCE_TESTS) / "models/exported/mlp.pt2");
    tree["exported.safetensors"] = safetensors({{"inputs", {6, 4}}, {"targets", {6, 3}}});
    tree["exported.toml"] = kExported;
    tree["pool.jsonl"] =
        "{\"input\": \"grey end\", \"output\": \"no\"}\n{\"input\": \"good end\", \"output\": \"yes\"}\n";
    const auto folder = work_folder() / "reference";
    make(tree, folder);
    for (const std::string line :
         {"train p.toml --quiet", "rank p.toml --stage finetune --method grad-dot --quiet --out out"}) {
      run_tool(settings, line, {.folder = folder});
    }
    tree_ = tree_of(folder);
    formats_ = formats();
    for (const auto& format : formats_) {
      make(tree_, folder);
      const auto usual = run_tool(settings, format.line, {.folder = folder});
      if (usual.status != 0) {
        throw std::runtime_error("whence " + format.line + ": " + usual.err);
      }
      usual_.push_back(usual.peak);
    }
  }

  std::vector<Job> jobs() const {
    std::vector<Job> out;
    std::mt19937_64 random(settings_.seed);
    for (std::size_t i = 0; i < formats_.size(); ++i) {
      const auto& format = formats_[i];
      const auto& bytes = tree_.at(format.file);
      const auto add = [&](const std::string& what, const std::string& changed) {
        out.push_back({"hostile/" + format.name + "/" + what, format.name,
                       [this, i, changed](const fs::path& folder) { return attempt(folder, i, changed); }});
      };
      for (const auto place : sections(bytes)) {
        add("cut at " + std::to_string(place), bytes.substr(0, place));
      }
      constexpr int kFlips = 50;
      for (int k = 0; k < kFlips; ++k) {
        auto flipped = bytes;
        const auto place = random() % bytes.size();
        const auto bit = random() % 8;
        flipped[place] = static_cast<char>(flipped[place] ^ (1 << bit));
        add("bit " + std::to_string(bit) + " of byte " + std::to_string(place), flipped);
      }
      for (std::size_t k = 0; k < format.worst.size(); ++k) {
        add("worst " + std::to_string(k), format.worst[k]);
      }
    }
    return out;
  }

 private:
  /// Where lines, lists and headers begin and end, and some places between.
  static std::vector<std::size_t> sections(const std::string& bytes) {
    std::vector<std::size_t> out{0, 1, 4, 8, bytes.size() - 1};
    constexpr std::size_t kMost = 12;
    for (const char mark : {'\n', '{', '}', '"'}) {
      std::size_t found = 0;
      for (std::size_t at = 0; at < bytes.size() && found < kMost; ++at) {
        if (bytes[at] == mark) {
          out.push_back(at + 1);
          ++found;
        }
      }
    }
    constexpr std::size_t kParts = 8;
    for (std::size_t k = 1; k < kParts; ++k) {
      out.push_back(bytes.size() * k / kParts);
    }
    for (auto at = bytes.find("PK"); at != bytes.npos; at = bytes.find("PK", at + 1)) {  // the headers of a zip file
      out.push_back(at);
    }
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    std::erase_if(out, [&](std::size_t place) { return place >= bytes.size(); });
    return out;
  }

  std::string attempt(const fs::path& folder, std::size_t number, const std::string& changed) const {
    const auto& format = formats_[number];
    make(tree_, folder);
    write(folder / format.file, changed);
    const auto outcome = run_tool(settings_, format.line, {.folder = folder});
    auto wrong = outcome.status == 0 ? "" : how_it_failed(outcome, 1);
    if (wrong.empty() && outcome.processor_seconds > kSoon) {
      wrong = "takes " + std::to_string(outcome.processor_seconds) + " s";
    }
    if (wrong.empty() && outcome.peak > usual_[number] + kLittle) {
      wrong = "takes " + std::to_string((outcome.peak - usual_[number]) >> 20) + " MB more than usual";
    }
    return wrong;
  }

  const Settings& settings_;
  Tree tree_;
  std::vector<Format> formats_;
  std::vector<std::size_t> usual_;  // memory
};

}  // namespace

bool hostile(const Settings& settings) {
  constexpr std::size_t kSample = 20;
  return run_scenario<Files>("hostile", kSample, settings);
}

}  // namespace whence::faults
