#include "sniff.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/json.h"
#include "whence/data/safetensors.h"
#include "whence/data/table_preview.h"
#include "whence/models/checkpoint.h"

namespace whence::cli {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kLooked = 20000;  // rows of a table

/// "train.csv" of "train.csv.gz", in lower case.
std::string plain_name(const fs::path& path) {
  auto name = path.filename().string();
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  return name.ends_with(".gz") ? name.substr(0, name.size() - 3) : name;
}

void read_lines_of_json(const fs::path& path, Source& source) {
  std::vector<nlohmann::json> objects;
  read_json_lines(path, [&](nlohmann::json object, std::int64_t, const std::string& where) {
    if (!object.is_object()) {
      throw DataError(where + ": expected a JSON object");
    }
    for (const auto& [key, value] : object.items()) {
      if (std::find(source.columns.begin(), source.columns.end(), key) == source.columns.end()) {
        source.columns.push_back(key);
      }
      if (value.is_structured()) {
        source.structured.insert(key);
      }
    }
    if (objects.size() < kLooked) {
      objects.push_back(std::move(object));
    }
  });
  std::erase_if(source.columns, [&](const auto& column) { return source.structured.contains(column); });
  for (const auto& object : objects) {
    auto& row = source.rows.emplace_back();
    for (const auto& column : source.columns) {
      const auto value = object.value(column, nlohmann::json());
      row.push_back(value.is_string() ? value.get<std::string>() : value.is_null() ? "" : value.dump());
    }
  }
}

/// Widths of the layers of a chain of dense layers; empty where tensors are none.
std::vector<std::int64_t> widths_of(const ParameterSet& tensors) {
  std::vector<at::Tensor> weights;
  for (const auto& value : tensors.values()) {
    if (value.dim() == 2) {
      weights.push_back(value);
    } else if (value.dim() != 1) {
      return {};
    }
  }
  std::vector<std::int64_t> out;  // files may hold layers in any order: each takes in what one before it puts out
  std::vector<bool> used(weights.size());
  for (std::size_t start = 0; start < weights.size(); ++start) {
    out = {weights[start].size(1), weights[start].size(0)};
    used.assign(weights.size(), false);
    used[start] = true;
    for (bool grown = true; grown;) {
      grown = false;
      for (std::size_t i = 0; i < weights.size(); ++i) {
        if (!used[i] && weights[i].size(1) == out.back()) {
          out.push_back(weights[i].size(0));
          used[i] = grown = true;
        }
      }
    }
    if (out.size() == weights.size() + 1) {
      return out;
    }
  }
  return {};
}

/// Throws DataError, with what to call them, where tensors of these names seem to be examples that are called otherwise
/// than a data table reads them: by what labels are called, or beside a model that is there already.
void check_names(const fs::path& path, const std::vector<std::string>& names, const ExportedFacts& program) {
  const auto holds = [](const std::vector<std::string>& list, const std::string& name) {
    return std::find(list.begin(), list.end(), name) != list.end();
  };
  std::vector<std::string> arguments, missing, spare;
  for (const auto& input : program.inputs) {
    arguments.push_back(input.name);
  }
  std::copy_if(arguments.begin(), arguments.end(), std::back_inserter(missing),
               [&](const auto& name) { return !holds(names, name); });
  std::copy_if(names.begin(), names.end(), std::back_inserter(spare),
               [&](const auto& name) { return !holds(arguments, name) && name != "targets"; });
  const bool has_inputs = holds(names, "inputs") || (!arguments.empty() && missing.empty());
  if (holds(names, "tokens") || (has_inputs && holds(names, "targets"))) {
    return;
  }
  if (arguments.size() > 1 && !has_inputs) {
    throw DataError(fmt::format("{}: no tensor {}; the model takes {}, and the file holds {}{}", path.string(),
                                fmt::join(missing, ", "), fmt::join(arguments, ", "), fmt::join(names, ", "),
                                missing.size() == 1 && spare.size() == 1
                                    ? fmt::format("; did you mean {}? call it {}", spare[0], missing[0])
                                    : ""));
  }
  static const std::vector<std::string> kLabels{"y", "label", "labels", "target"};
  const auto label = std::find_if(spare.begin(), spare.end(), [&](const auto& name) { return holds(kLabels, name); });
  if (has_inputs && label != spare.end()) {
    throw DataError(fmt::format("{}: no tensor targets; did you mean {}? call it targets", path.string(), *label));
  }
  if (!has_inputs && !holds(names, "targets") && (label != spare.end() || !arguments.empty())) {
    throw DataError(fmt::format("{}: it holds {}, expected tensors called inputs and targets", path.string(),
                                fmt::join(names, ", ")));
  }
}

Source sniff_safetensors(const fs::path& path, const ExportedFacts& program) {
  const auto tensors = read_safetensors(path);
  Source source{.path = path, .format = "safetensors", .columns = tensors.names()};
  check_names(path, source.columns, program);
  const bool arguments =
      !program.inputs.empty() && std::all_of(program.inputs.begin(), program.inputs.end(),
                                             [&](const auto& input) { return tensors.contains(input.name); });
  if (tensors.contains("inputs") || tensors.contains("tokens") || tensors.contains("targets") || arguments) {
    source.kind = SourceKind::kTensors;
    source.has_targets = !arguments || tensors.contains("targets");
    for (std::size_t i = 0; i < tensors.size(); ++i) {  // several inputs have their arguments' names
      const auto& [name, value] = std::pair(tensors.names()[i], tensors.values()[i]);
      source.inputs += name != "targets" && !tensors.contains("tokens") && value.dim() > 0 && value.size(0) > 0
                           ? value.numel() / value.size(0)
                           : 0;
    }
    if (tensors.contains("targets")) {
      const auto& targets = tensors.at("targets");
      source.has_values = targets.is_floating_point() || targets.dim() == 2;
      source.has_bits = targets.eq(0).logical_or(targets.eq(1)).all().item<bool>();
      source.has_marks = targets.dim() == 2 && targets.size(1) > 1 && source.has_bits;
    }
    return source;
  }
  source.kind = SourceKind::kCheckpoint;
  source.widths = widths_of(tensors);
  if (source.widths.empty()) {
    throw DataError(
        fmt::format("{}: neither examples (tensors inputs and targets) nor the weights of dense layers that follow "
                    "each other (linear, "
                    "mlp), which init reads; a pipeline also takes those of convolutions in a row (spec = "
                    "\"convnet:…\"), not those "
                    "with residual connections or norms; for a model of texts name its folder",
                    path.string()));
  }
  return source;
}

/// The labels' file of MNIST's naming: train-images-idx3-ubyte, train-labels-idx1-ubyte.
fs::path labels_beside(const fs::path& images) {
  auto name = images.filename().string();
  for (const auto& [from, to] : {std::pair("images", "labels"), std::pair("idx3", "idx1")}) {
    const auto place = name.find(from);
    if (place != name.npos) {
      name.replace(place, std::string_view(from).size(), to);
    }
  }
  const auto labels = images.parent_path() / name;
  if (labels == images || !fs::exists(labels)) {
    throw DataError(fmt::format("{}: images without labels, expected {} beside them", images.string(), name));
  }
  return labels;
}

bool is_idx(std::span<const std::byte> bytes) {
  return bytes.size() > 8 && bytes[0] == std::byte{0} && bytes[1] == std::byte{0} &&
         (bytes[2] == std::byte{8} || (bytes[2] >= std::byte{9} && bytes[2] <= std::byte{14}));
}

Source sniff_file(const fs::path& path, const ExportedFacts& program) {
  const auto name = plain_name(path);
  const auto extension = fs::path(name).extension().string();
  Source source{.path = path};
  if (extension == ".safetensors") {
    return sniff_safetensors(path, program);
  }
  if (is_exported(path)) {
    source.kind = SourceKind::kExported;
    source.program = dynamic_cast<const ExportedModel&>(*open_exported(path)).facts();
    return source;
  }
  if (name == "tokenizer.json") {
    source.kind = SourceKind::kTokenizer;
    return source;
  }
  if (extension == ".csv" || extension == ".tsv" || extension == ".tab") {
    source.format = extension == ".csv" ? "csv" : "tsv";
    auto [columns, rows] = preview_table(path, source.format, kLooked);
    source.columns = std::move(columns);
    source.rows = std::move(rows);
    return source;
  }
  if (extension == ".jsonl" || extension == ".ndjson") {
    source.format = "jsonl";
    read_lines_of_json(path, source);
    return source;
  }
  if (extension == ".txt" || extension == ".md") {
    source.kind = SourceKind::kPlainText;
    source.format = "text";
    return source;
  }
  const auto bytes = open_bytes(path);
  if (is_idx(bytes->bytes())) {
    source.kind = SourceKind::kIdx;
    source.format = "idx";
    source.labels = labels_beside(path);
    return source;
  }
  constexpr std::size_t kRecord = 1 + 3 * 32 * 32;
  if (extension == ".bin" && !bytes->bytes().empty() && bytes->bytes().size() % kRecord == 0) {
    source.kind = SourceKind::kCifar;
    source.format = "cifar";
    source.files = {path};
    return source;
  }
  if (extension == ".pt" || extension == ".pth" || extension == ".ckpt") {
    throw DataError(
        fmt::format("{}: what torch.save wrote, which Python alone reads: whence_export.save(model, x[:2], \"{}.pt2\") "
                    "there writes "
                    "the model for whence (python/whence_export.py)",
                    path.string(), path.stem().string()));
  }
  throw DataError(fmt::format(
      "{}: not recognised, expected a model folder, .pt2, .csv, .tsv, .jsonl, .txt, .safetensors, idx or CIFAR's "
      ".bin (.gz too)",
      path.string()));
}

Source sniff_model(const fs::path& path) {
  Source source{.kind = SourceKind::kModelFolder, .path = path};
  const auto config = read_json(path / "config.json");
  const auto architectures = config.value("architectures", nlohmann::json::array()).dump();
  source.classifies = architectures.find("SequenceClassification") != architectures.npos;
  const auto type = config.value("model_type", std::string());
  source.masked = architectures.find("MaskedLM") != architectures.npos || type.find("bert") != type.npos;
  return source;
}

bool is_labels_of_idx(const fs::path& path) { return plain_name(path).find("labels") != std::string::npos; }

std::vector<Source> sniff_folder(const fs::path& path, const ExportedFacts& program) {
  if (fs::exists(path / "config.json")) {
    return {sniff_model(path)};
  }
  if (fs::exists(path / "tokenizer.json")) {
    return {Source{.kind = SourceKind::kTokenizer, .path = path}};
  }
  std::vector<fs::path> files;
  std::set<std::string> models;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (fs::exists(entry.path() / "config.json")) {
      models.insert(entry.path().filename().string());
    }
    const auto name = plain_name(entry.path());
    static const std::set<std::string> kData{".csv",    ".tsv", ".tab", ".jsonl",
                                             ".ndjson", ".txt", ".bin", ".safetensors"};
    const bool idx = name.find("-ubyte") != name.npos && !is_labels_of_idx(entry.path());
    const bool note = name.starts_with("readme") || name.starts_with("license") || name.find(".meta.") != name.npos;
    if (entry.is_regular_file() && !note && (idx || kData.contains(fs::path(name).extension().string()))) {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  std::vector<Source> out;
  for (const auto& file : files) {
    auto source = sniff_file(file, program);
    const auto same = std::find_if(out.begin(), out.end(), [&](const Source& known) {
      return known.kind == SourceKind::kCifar && source.kind == SourceKind::kCifar &&
             known.is_queries() == source.is_queries();
    });
    if (same == out.end()) {
      out.push_back(std::move(source));
    } else {
      same->files.push_back(file);  // the batches of one data set
    }
  }
  if (out.empty()) {
    throw DataError(fmt::format("{}: no config.json and no data files in that folder{}", path.string(),
                                models.empty() ? "" : fmt::format("; models: {}", fmt::join(models, ", "))));
  }
  return out;
}

}  // namespace

std::unique_ptr<Model> open_exported(const fs::path& path) {
  const std::string shown = nlohmann::json::parse(json_text(nlohmann::json(path.string())));  // a path may be any bytes
  return create<Model>("exported:file=" + shown);
}

bool Source::is_queries() const {
  const auto name = plain_name(path);
  static constexpr std::array kWords{"test", "dev",  "valid", "val.",    "val_", "_val",
                                     "-val", "eval", "query", "queries", "t10k"};
  return std::any_of(kWords.begin(), kWords.end(), [&](const char* word) { return name.find(word) != name.npos; });
}

std::vector<Source> sniff(const fs::path& path, const ExportedFacts& program) {
  if (!fs::exists(path)) {
    throw DataError(fmt::format("{}: no such file or folder", path.string()));
  }
  if (fs::is_regular_file(path) && fs::file_size(path) == 0) {
    throw DataError(fmt::format("{}: the file is empty", path.string()));
  }
  if (fs::is_directory(path)) {
    return sniff_folder(path, program);
  }
  if (is_labels_of_idx(path) && is_idx(open_bytes(path)->bytes())) {
    return {};  // found beside its images
  }
  return {sniff_file(path, program)};
}

std::map<std::string, ColumnFacts> facts_of(const Source& table) {
  std::map<std::string, ColumnFacts> out;
  for (std::size_t c = 0; c < table.columns.size(); ++c) {
    auto& facts = out[table.columns[c]];
    std::set<std::string> seen;
    for (const auto& row : table.rows) {
      const auto& cell = row[c];
      const auto [missing, number] = cell_value(cell);
      if (missing) {
        continue;
      }
      ++facts.filled;
      seen.insert(cell);
      if (number) {
        ++facts.numbers;
        facts.whole += *number == std::floor(*number) ? 1 : 0;
        facts.bits += *number == 0 || *number == 1 ? 1 : 0;
      }
      std::istringstream words(cell);
      for (std::string word; words >> word;) {
        facts.words += 1;
      }
    }
    facts.distinct = static_cast<std::int64_t>(seen.size());
    facts.words /= static_cast<double>(std::max<std::int64_t>(1, facts.filled));
  }
  return out;
}

}  // namespace whence::cli
