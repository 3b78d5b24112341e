#include "fuzz/readers.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "support/stored_zip.h"
#include "whence/core/error.h"
#include "whence/core/json.h"
#include "whence/core/printable.h"
#include "whence/data/dataset.h"
#include "whence/data/safetensors.h"
#include "whence/icl/prompt.h"
#include "whence/models/checkpoint.h"
#include "whence/models/language_model.h"
#include "whence/models/model.h"
#include "whence/stages/pipeline.h"
#include "whence/store/ranking.h"
#include "whence/store/score_store.h"
#include "whence/text/tokenizer.h"

namespace whence::test {
namespace {
namespace fs = std::filesystem;

/// A folder of this process's, in memory where the system has such a place.
const fs::path& folder() {
  static const fs::path& made = *new fs::path([] {  // there until the very end
    const fs::path memory = "/dev/shm";
    const auto path =
        (fs::exists(memory) ? memory : fs::temp_directory_path()) / fmt::format("whence-fuzz-{}", ::getpid());
    fs::create_directories(path / "model");
    fs::create_directories(path / "result");
    std::atexit([] {
      std::error_code ignored;
      fs::remove_all(folder(), ignored);
    });
    return path;
  }());
  return made;
}

fs::path put(const std::string& name, std::string_view bytes) {
  auto path = folder() / name;
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

/// Calls read(), whose Errors are one line that can be printed.
template <class Read>
void guarded(Read&& read) {
  try {
    read();
  } catch (const Error& error) {
    static_cast<void>(printable(error.what()));
  }
}

/// A data table that names the file, for both kinds of targets.
void read_data(const nlohmann::json& table) {
  for (const auto wanted : {TargetKind::kClasses, TargetKind::kValues}) {
    guarded([&] { read_dataset(table, folder(), wanted); });
  }
}

void fuzz_safetensors(std::string_view bytes) {
  const auto path = put("file.safetensors", bytes);
  guarded([&] { read_safetensors(path); });
  guarded([&] { read_safetensors_metadata(path); });
  read_data({{"format", "safetensors"}, {"file", path.string()}});
}

void fuzz_json(std::string_view bytes) {
  guarded([&] { brief(parse_json(bytes, "file")); });
  guarded([&] { JsonView(parse_json<JsonView::Value>(bytes, "file"), "file").dump(); });
}

void fuzz_gzip(std::string_view bytes) {
  guarded([&] { read_utf8(put("file.txt.gz", bytes)); });
}

template <const char* kFormat>
void fuzz_table(std::string_view bytes) {
  const auto path = put(std::string("file.") + kFormat, bytes);
  read_data({{"format", kFormat}, {"file", path.string()}});
  read_data({{"format", kFormat}, {"file", path.string()}, {"label", "y"}, {"input", {"a", "b"}}});
}
constexpr char kCsv[] = "csv", kTsv[] = "tsv", kJsonl[] = "jsonl";

void fuzz_idx(std::string_view bytes) {  // the images, then their labels
  const auto half = bytes.size() / 2;
  put("images", bytes.substr(0, half));
  put("labels", bytes.substr(half));
  read_data({{"format", "idx"}, {"images", "images"}, {"labels", "labels"}});
  put("labels", std::string("\0\0\x08\x01\0\0\0\x01\0", 9));
  put("images", bytes);
  read_data({{"format", "idx"}, {"images", "images"}, {"labels", "labels"}});
}

void fuzz_cifar(std::string_view bytes) {
  put("file.bin", bytes);
  read_data({{"format", "cifar"}, {"files", {"file.bin"}}});
}

void fuzz_tokenizer(std::string_view bytes) {
  const auto path = put("tokenizer.json", bytes);
  guarded([&] {
    const Tokenizer tokenizer(path);
    guarded([&] {
      const auto encoding = tokenizer.encode("Hello, wörld! 12 ﷺ\n  a b", "a");
      guarded([&] { tokenizer.decode(encoding.ids); });
    });
    guarded([&] { tokenizer.encode("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"); });
  });
}

void fuzz_tokenizer_settings(std::string_view bytes) {
  put("model/tokenizer.json",
      R"({"model": {"type": "WordLevel", "vocab": {"<unk>": 0, "a": 1}, "unk_token": "<unk>"}, "post_processor": null})");
  put("model/tokenizer_config.json", bytes);
  guarded([&] { Tokenizer(folder() / "model").encode("a b"); });
}

void fuzz_config(std::string_view bytes) {
  put("model/config.json", bytes);
  guarded([&] { open_model_folder(folder() / "model"); });
}

void fuzz_index(std::string_view bytes) {
  const auto path = put("model/model.safetensors.index.json", bytes);
  guarded([&] { checkpoint_files(folder() / "model"); });
  fs::remove(path);
}

void fuzz_pipeline(std::string_view bytes) {
  guarded([&] { Pipeline(put("pipeline.toml", bytes), RunOptions()); });
}

void fuzz_tasks(std::string_view bytes) {
  guarded([&] { read_tasks(put("tasks.json", bytes)); });
  guarded([&] { read_pool(put("pool.jsonl", bytes)); });
}

void fuzz_ranking(std::string_view bytes) {
  guarded([&] { read_rankings(put("ranking.jsonl", bytes)); });
}

void fuzz_scores(std::string_view bytes) {
  put("result/scores.safetensors", bytes);
  guarded([&] { read_scores(folder() / "result"); });
}

/// A program, of which `bytes` are the graph, and weights that fit it; or the file as a whole.
void fuzz_exported(std::string_view bytes) {
  const std::string tensor =
      R"("use_pickle":false,"is_param":true,"tensor_meta":{"dtype":7,"layout":7,"storage_offset":{"as_int":0},)"
      R"("requires_grad":true,)";
  const auto config =
      R"({"config":{"fc.weight":{"path_name":"w",)" + tensor +
      R"("sizes":[{"as_int":2},{"as_int":3}],"strides":[{"as_int":3},{"as_int":1}]}},"fc.bias":{"path_name":"b",)" +
      tensor + R"("sizes":[{"as_int":2}],"strides":[{"as_int":1}]}}}})";
  const auto path =
      put("file.pt2", bytes.starts_with("PK") ? std::string(bytes)
                                              : stored_zip({{"m/archive_format", "pt2"},
                                                            {"m/models/model.json", std::string(bytes)},
                                                            {"m/data/weights/model_weights_config.json", config},
                                                            {"m/data/weights/w", std::string(24, '\x3f')},
                                                            {"m/data/weights/b", std::string(8, '\x3e')}}));
  guarded([&] { create<Model>("exported:file=" + path.string()); });
}

constexpr std::array kReaders{FuzzedReader{"safetensors", fuzz_safetensors},
                              FuzzedReader{"json", fuzz_json},
                              FuzzedReader{"gzip", fuzz_gzip},
                              FuzzedReader{"csv", fuzz_table<kCsv>},
                              FuzzedReader{"tsv", fuzz_table<kTsv>},
                              FuzzedReader{"jsonl", fuzz_table<kJsonl>},
                              FuzzedReader{"idx", fuzz_idx},
                              FuzzedReader{"cifar", fuzz_cifar},
                              FuzzedReader{"tokenizer", fuzz_tokenizer},
                              FuzzedReader{"tokenizer-settings", fuzz_tokenizer_settings},
                              FuzzedReader{"config", fuzz_config},
                              FuzzedReader{"index", fuzz_index},
                              FuzzedReader{"pipeline", fuzz_pipeline},
                              FuzzedReader{"tasks", fuzz_tasks},
                              FuzzedReader{"ranking", fuzz_ranking},
                              FuzzedReader{"scores", fuzz_scores},
                              FuzzedReader{"exported", fuzz_exported}};

}  // namespace

std::span<const FuzzedReader> fuzzed_readers() { return kReaders; }

}  // namespace whence::test
