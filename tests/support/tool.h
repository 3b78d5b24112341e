#pragma once
#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "support/tool_server.h"
#include "whence/core/files.h"
#include "whence/core/random.h"
#include "whence/data/safetensors.h"

namespace whence::test {

struct ToolResult {
  int status;
  std::string out, err;
};

/// A folder with a two-stage pipeline over made-up data, in which the tool is run. Goes away with the object.
class ToolFolder {
 public:
  ToolFolder()
      : path_(std::filesystem::temp_directory_path() / fmt::format("whence-test-{}-{}", ::getpid(), ++count())) {
    std::filesystem::create_directories(path_);
    write_data("pretrain.safetensors", 200, 0);
    write_data("finetune.safetensors", 100, 1);
    write_data("queries.safetensors", 5, 2);
    write("pipeline.toml", pipeline());
  }
  ~ToolFolder() { std::filesystem::remove_all(path_); }
  ToolFolder(const ToolFolder&) = delete;
  ToolFolder& operator=(const ToolFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path_ / name) << text; }
  std::string read(const std::string& name) const { return read_text(path_ / name); }
  nlohmann::json json(const std::string& name) const { return nlohmann::json::parse(read(name)); }

  /// A pipeline in which `from` is replaced by `to`.
  std::string pipeline(const std::string& from = "", const std::string& to = "") const {
    std::string text = R"(seed = 3
[model]
spec = "mlp:widths=6,activation=tanh"
[[stage]]
name = "pretrain"
train = { format = "safetensors", file = "pretrain.safetensors" }
weight-decay = 1e-2
optimizer = "lbfgs:max-iterations=2000,tolerance=1e-9"
checkpoint = "run/pretrain.safetensors"
[[stage]]
name = "finetune"
train = { format = "safetensors", file = "finetune.safetensors" }
tuning = "full:proximity=0.1"
weight-decay = 1e-2
optimizer = "lbfgs:max-iterations=2000,tolerance=1e-9"
checkpoint = "run/finetune.safetensors"
[queries.test]
data = { format = "safetensors", file = "queries.safetensors" }
)";
    if (!from.empty()) {
      const auto place = text.find(from);
      REQUIRE(place != text.npos);
      text.replace(place, from.size(), to);
    }
    return text;
  }

  void write_data(const std::string& name, std::int64_t examples, std::uint64_t seed) const {
    auto draws = Random(seed);
    ParameterSet tensors;
    const auto inputs = draws.normal({examples, 4});
    tensors.add("inputs", inputs);
    tensors.add("targets", inputs.sum(1).gt(0).to(at::kLong) + inputs.select(1, 0).gt(0.5).to(at::kLong));
    write_safetensors(path_ / name, tensors);
  }

  /// Runs `whence ARGUMENTS` in the folder, without starting a program (tool_server.h); on the device that
  /// WHENCE_TEST_DEVICE names, if any.
  ToolResult run(const std::string& arguments) const { return told(run_tool(path_, on_device(arguments))); }

  /// The same by the program itself, started by bash that does something first.
  ToolResult start(const std::string& before, const std::string& arguments) const {
    std::string quoted;
    for (const char c : fmt::format("cd '{}' && {}; '{}' {} >out.txt 2>err.txt </dev/null", path_.string(), before,
                                    WHENCE_TOOL, on_device(arguments))) {
      quoted += std::string_view("\\\"$`").find(c) == std::string_view::npos ? "" : "\\";
      quoted += c;
    }
    const int status = std::system(("bash -c \"" + quoted + "\"").c_str());
    return told(WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  }

 private:
  ToolResult told(int status) const { return {status, read("out.txt"), read("err.txt")}; }
  static std::string on_device(const std::string& arguments) {
    const auto* device = std::getenv("WHENCE_TEST_DEVICE");
    const auto command = arguments.substr(0, arguments.find(' '));
    const bool computes =
        std::set<std::string>{"train", "rank", "score", "evaluate", "icl", "kernel"}.contains(command);
    const bool chosen = device == nullptr || !computes || arguments.find("--device") != arguments.npos;
    return chosen ? arguments : arguments + " --device " + device;
  }
  static int& count() {
    static int value = 0;
    return value;
  }
  std::filesystem::path path_;
};

/// The one line that a failed command prints, with the status that it must have.
inline void check_fails(const ToolResult& result, int status, const std::string& part) {
  CAPTURE(result.out);
  CAPTURE(result.err);
  CHECK(result.status == status);
  CHECK(result.err.starts_with("whence: error: "));
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  CHECK(result.err.find(part) != std::string::npos);
}

/// Less the lines that warn, before an error or instead of one.
inline ToolResult less_warnings(ToolResult result) {
  while (result.err.starts_with("whence: warning: ")) {
    result.err.erase(0, result.err.find('\n') + 1);
  }
  return result;
}

inline bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

inline std::string last_line(std::string text) {
  text.erase(text.find_last_not_of('\n') + 1);
  return text.substr(text.rfind('\n') + 1);
}

}  // namespace whence::test
