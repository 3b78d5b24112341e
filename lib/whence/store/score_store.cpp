#include "whence/store/score_store.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <sstream>

#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/data/safetensors.h"
#include "whence/data/sealed_safetensors.h"
#include "whence/store/detail/coverage.h"
#include "whence/store/detail/run_key.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

using detail::Block;
using detail::Coverage;
using Clock = std::chrono::steady_clock;

constexpr auto kCommitInterval = std::chrono::seconds(1);  // a sync to disk takes milliseconds, a block may take less
constexpr std::string_view kScores = "scores", kQueryIds = "query-ids", kExampleIds = "example-ids";

/// A file open for writing at any place.
class File {
 public:
  explicit File(fs::path path)
      : path_(std::move(path)), descriptor_(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
    if (descriptor_ < 0) {
      fail();
    }
  }
  ~File() { ::close(descriptor_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const fs::path& path() const { return path_; }

  std::int64_t size() const {
    struct stat status {};
    check(::fstat(descriptor_, &status));
    return status.st_size;
  }
  void resize(std::int64_t bytes) { check(::ftruncate(descriptor_, bytes)); }
  void sync() { check(::fdatasync(descriptor_)); }

  void write(const void* data, std::int64_t bytes, std::int64_t offset) {
    const auto* from = static_cast<const char*>(data);
    while (bytes > 0) {
      const auto written = ::pwrite(descriptor_, from, static_cast<std::size_t>(bytes), offset);
      if (written < 0 && errno == EINTR) {
        continue;
      }
      if (written <= 0) {
        fail();
      }
      from += written;
      offset += written;
      bytes -= written;
    }
  }

 private:
  void check(int status) const {
    if (status != 0) {
      fail();
    }
  }
  [[noreturn]] void fail() const {
    throw DataError(fmt::format("cannot write {}: {}", path_.string(), std::strerror(errno)));
  }

  fs::path path_;
  int descriptor_;
};

/// `name` as one path component: what is not a letter, digit, '-', '_' or '.' becomes %XX.
std::string file_name(const std::string& name) {
  std::string out;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    out +=
        std::isalnum(byte) != 0 || c == '-' || c == '_' || c == '.' ? std::string(1, c) : fmt::format("%{:02X}", byte);
  }
  return out;
}

/// "" of "scores", ".STAGE" of "scores.STAGE"; nothing for any other name.
std::optional<std::string> stage_suffix(const std::string& name) {
  if (name == kScores || name.starts_with(fmt::format("{}.", kScores))) {
    return name.substr(kScores.size());
  }
  return std::nullopt;
}

std::uint32_t checksum(const void* data, std::size_t bytes) {
  return static_cast<std::uint32_t>(crc32_z(0, static_cast<const Bytef*>(data), bytes));
}

std::string example_ids_name(const std::string& suffix) { return std::string(kExampleIds) + suffix; }

void check_ids(const at::Tensor& ids, std::string_view what) {
  if (!ids.defined() || ids.dim() != 1 || ids.scalar_type() != at::kLong) {
    throw InvalidArgument(fmt::format("score store: {} must be one dimension of int64", what));
  }
}

/// The file's bytes as a tensor, without reading them. The file must not change while the tensor lives.
at::Tensor map_tensor(const fs::path& path, std::int64_t rows, std::int64_t columns, at::ScalarType dtype) {
  const auto file = open_bytes(path);
  auto* data = const_cast<std::byte*>(file->bytes().data());  // from_blob takes no const; nothing writes through it
  return at::from_blob(
      data, {rows, columns}, [file](void*) {}, at::TensorOptions().dtype(dtype));
}

}  // namespace

class ScoreStore::Work {
 public:
  Work(fs::path folder, std::vector<ScoreLayout> layouts, at::Tensor query_ids, at::ScalarType dtype);
  /// Keeps what is done, and leaves nothing where nothing was; a failure here was or will be seen by whoever reads the
  /// folder.
  ~Work() {
    try {
      commit();
      std::error_code ignored;
      if (journal_size_ == 0 && !holds_vectors()) {
        fs::remove_all(folder_, ignored);
      }
    } catch (const Error&) {
    }
  }
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  ScoreSink& sink(const std::string& name);
  fs::path vectors_path(const std::string& block) const {
    return folder_ / fmt::format("vectors.{}.safetensors", file_name(block));
  }
  void write(const fs::path& file, const std::string& run_key);

 private:
  class Matrix;
  struct Record {
    std::size_t matrix;
    Block block;
    std::uint32_t data;  // checksum of the block's scores
  };

  bool holds_vectors() const {
    std::error_code ignored;
    const fs::directory_iterator files(folder_, ignored);
    return std::any_of(begin(files), end(files),
                       [](const auto& file) { return file.path().filename().string().starts_with("vectors."); });
  }
  void replay();
  std::optional<Record> read_record(const std::string& line) const;
  void record(const Record& done);
  void commit();

  fs::path folder_;
  at::Tensor query_ids_;
  at::ScalarType dtype_;
  std::vector<std::unique_ptr<Matrix>> matrices_;
  std::unique_ptr<File> journal_;
  std::int64_t journal_size_ = 0;  // bytes that are whole records
  std::string pending_;            // records of blocks not yet synced
  Clock::time_point last_commit_ = Clock::now();
};

class ScoreStore::Work::Matrix : public ScoreSink {
 public:
  Matrix(Work& work, std::size_t index, ScoreLayout layout)
      : work_(work),
        index_(index),
        layout_(std::move(layout)),
        coverage_(work.query_ids_.numel()),
        entry_bytes_(static_cast<std::int64_t>(at::elementSize(work.dtype_))) {}

  const ScoreLayout& layout() const { return layout_; }
  std::int64_t rows() const { return work_.query_ids_.numel(); }
  std::int64_t columns() const { return layout_.example_ids.numel(); }
  /// Takes a block for done where what lies in the file has that checksum.
  void take(const Block& b, std::uint32_t data) {
    const auto held = map().narrow(0, b.first_row, b.rows).narrow(1, b.first_column, b.columns).contiguous();
    if (checksum(held.const_data_ptr(), held.nbytes()) == data) {
      coverage_.add(b);
    }
  }
  void sync() { file_->sync(); }
  at::Tensor map() const { return map_tensor(file_->path(), rows(), columns(), work_.dtype_); }

  bool fits(const Block& b) const {
    return b.first_row >= 0 && b.rows >= 0 && b.first_row <= rows() - b.rows && b.first_column >= 0 && b.columns >= 0 &&
           b.first_column <= columns() - b.columns;
  }

  /// Makes the sparse file, or checks that it is the one that the journal speaks of.
  void open(bool resumed) {
    file_ = std::make_unique<File>(work_.folder_ / (file_name(layout_.name) + ".bin"));
    const auto bytes = rows() * columns() * entry_bytes_;
    if (resumed && file_->size() != bytes) {
      throw DataError(fmt::format("{}: {} bytes, expected {}; remove {} to begin anew", file_->path().string(),
                                  file_->size(), bytes, work_.folder_.string()));
    }
    file_->resize(bytes);
  }

  bool has(std::int64_t first_query, std::int64_t queries, std::int64_t first_example,
           std::int64_t examples) const override {
    const Block block{first_query, queries, first_example, examples};
    check_fits(block);
    return coverage_.holds(block);
  }

  void block(std::int64_t first_query, std::int64_t first_example, const at::Tensor& scores) override {
    if (scores.dim() != 2) {
      throw InvalidArgument(
          fmt::format("{}: a block of {} dimensions, expected [queries, examples]", layout_.name, scores.dim()));
    }
    const Block block{first_query, scores.size(0), first_example, scores.size(1)};
    check_fits(block);
    const auto values = scores.detach().to(at::kCPU, work_.dtype_).contiguous();
    check_finite(block, values);
    write(block, values);
    coverage_.add(block);
    work_.record({index_, block, checksum(values.const_data_ptr(), values.nbytes())});
  }

  void check_complete() const {
    for (std::int64_t row = 0; row < rows(); ++row) {
      if (const auto column = coverage_.held_up_to(row, 0); column < columns()) {
        throw InvalidArgument(fmt::format("{}: no score for {}", layout_.name, cell(row, column)));
      }
    }
  }

 private:
  std::string cell(std::int64_t row, std::int64_t column) const {
    return fmt::format("query row {} (id {}), example row {} (id {})", row, work_.query_ids_[row].item<std::int64_t>(),
                       column, layout_.example_ids[column].item<std::int64_t>());
  }

  void check_fits(const Block& b) const {
    if (!fits(b)) {
      throw InvalidArgument(
          fmt::format("{}: block of {} queries from {} and {} examples from {} leaves the matrix [{}, {}]",
                      layout_.name, b.rows, b.first_row, b.columns, b.first_column, rows(), columns()));
    }
  }

  void check_finite(const Block& block, const at::Tensor& values) const {
    const auto finite = at::isfinite(values);
    if (finite.all().item<bool>()) {
      return;
    }
    const auto first = finite.logical_not().nonzero()[0];
    const auto row = first[0].item<std::int64_t>(), column = first[1].item<std::int64_t>();
    throw NumericalError(fmt::format("{}: score {} of {} is not finite", layout_.name,
                                     values[row][column].item<double>(),
                                     cell(block.first_row + row, block.first_column + column)));
  }

  void write(const Block& block, const at::Tensor& values) {
    const auto* data = static_cast<const char*>(values.const_data_ptr());
    const bool whole_rows = block.columns == columns();
    const auto run = (whole_rows ? block.rows * block.columns : block.columns) * entry_bytes_;
    for (std::int64_t row = 0; row < (whole_rows ? 1 : block.rows); ++row) {
      file_->write(data + row * run, run, ((block.first_row + row) * columns() + block.first_column) * entry_bytes_);
    }
  }

  Work& work_;
  std::size_t index_;
  ScoreLayout layout_;
  Coverage coverage_;
  std::int64_t entry_bytes_;
  std::unique_ptr<File> file_;
};

ScoreStore::Work::Work(fs::path folder, std::vector<ScoreLayout> layouts, at::Tensor query_ids, at::ScalarType dtype)
    : folder_(std::move(folder)), query_ids_(std::move(query_ids)), dtype_(dtype) {
  if (dtype != at::kFloat && dtype != at::kDouble) {
    throw InvalidArgument(fmt::format("score store: dtype {}, expected float32 or float64", at::toString(dtype)));
  }
  check_ids(query_ids_, "query ids");
  for (auto& layout : layouts) {
    if (!stage_suffix(layout.name)) {
      throw InvalidArgument(
          fmt::format("score store: name \"{}\", expected \"scores\" or \"scores.STAGE\"", layout.name));
    }
    check_ids(layout.example_ids, layout.name + ": example ids");
    matrices_.push_back(std::make_unique<Matrix>(*this, matrices_.size(), std::move(layout)));
  }
  replay();
}

/// Takes the journal up to the first line that is not whole: what a crash tore is done again.
void ScoreStore::Work::replay() {
  journal_ = std::make_unique<File>(folder_ / "journal.txt");
  const auto text = read_text(journal_->path());
  std::vector<Record> records;
  std::size_t read = 0;
  for (auto end = text.find('\n'); end != text.npos; end = text.find('\n', read)) {
    const auto found = read_record(text.substr(read, end - read));
    if (!found) {
      break;
    }
    records.push_back(*found);
    read = end + 1;
  }
  for (const auto& matrix : matrices_) {
    matrix->open(read > 0);
  }
  for (const auto& found : records) {
    matrices_[found.matrix]->take(found.block, found.data);
  }
  journal_size_ = static_cast<std::int64_t>(read);
  journal_->resize(journal_size_);
}

/// A line is the record and its own checksum.
std::optional<ScoreStore::Work::Record> ScoreStore::Work::read_record(const std::string& line) const {
  std::istringstream in(line);
  Record found{};
  auto& block = found.block;
  std::uint32_t own = 0;
  in >> found.matrix >> block.first_row >> block.rows >> block.first_column >> block.columns >> found.data >> own;
  if (!in || !in.eof() || found.matrix >= matrices_.size() || !matrices_[found.matrix]->fits(block) ||
      own != checksum(line.data(), line.rfind(' '))) {
    return std::nullopt;
  }
  return found;
}

void ScoreStore::Work::record(const Record& done) {
  const auto& block = done.block;
  const auto line = fmt::format("{} {} {} {} {} {}", done.matrix, block.first_row, block.rows, block.first_column,
                                block.columns, done.data);
  pending_ += fmt::format("{} {}\n", line, checksum(line.data(), line.size()));
  if (Clock::now() - last_commit_ >= kCommitInterval) {
    commit();
  }
}

/// Data first, then the journal: a record on disk means that its block is there.
void ScoreStore::Work::commit() {
  if (pending_.empty()) {
    return;
  }
  for (const auto& matrix : matrices_) {
    matrix->sync();
  }
  journal_->write(pending_.data(), static_cast<std::int64_t>(pending_.size()), journal_size_);
  journal_->sync();
  journal_size_ += static_cast<std::int64_t>(pending_.size());
  pending_.clear();
  last_commit_ = Clock::now();
}

ScoreSink& ScoreStore::Work::sink(const std::string& name) {
  std::vector<std::string> known;
  for (const auto& matrix : matrices_) {
    if (matrix->layout().name == name) {
      return *matrix;
    }
    known.push_back(matrix->layout().name);
  }
  throw InvalidArgument("score store: " + unknown_name("matrix", name, known));
}

void ScoreStore::Work::write(const fs::path& file, const std::string& run_key) {
  commit();
  ParameterSet tensors;
  for (const auto& matrix : matrices_) {
    matrix->check_complete();
    tensors.add(matrix->layout().name, matrix->map());
  }
  tensors.add(std::string(kQueryIds), query_ids_);
  for (const auto& matrix : matrices_) {
    tensors.add(example_ids_name(*stage_suffix(matrix->layout().name)), matrix->layout().example_ids);
  }
  write_safetensors(file, tensors, {{detail::kRunKey, run_key}});
}

ScoreStore::ScoreStore(const fs::path& folder, std::vector<ScoreLayout> matrices, at::Tensor query_ids,
                       at::ScalarType dtype)
    : work_(std::make_unique<Work>(folder, std::move(matrices), std::move(query_ids), dtype)) {}
ScoreStore::~ScoreStore() = default;

ScoreSink& ScoreStore::sink(const std::string& name) { return work_->sink(name); }

void ScoreStore::save_vectors(const std::string& block, const ParameterSet& vectors) {
  write_sealed(work_->vectors_path(block), vectors, {});
}

std::optional<ParameterSet> ScoreStore::load_vectors(const std::string& block) const {
  const auto path = work_->vectors_path(block);
  if (!fs::exists(path)) {
    return std::nullopt;
  }
  try {
    return read_sealed(path).tensors;  // copies: sums over mapped ones, which lie otherwise in memory, differ a little
  } catch (const DataError&) {         // damaged: made again
    return std::nullopt;
  }
}

void ScoreStore::write(const fs::path& file, const std::string& run_key) { work_->write(file, run_key); }

Scores read_scores(const fs::path& path) {
  const auto file = fs::is_directory(path) ? path / "scores.safetensors" : path;
  const auto tensors = read_safetensors(file);
  const auto ids = [&](const std::string& name) {
    if (!tensors.contains(name) || tensors.at(name).dim() != 1 || tensors.at(name).scalar_type() != at::kLong) {
      throw DataError(fmt::format("{}: no tensor \"{}\" of one dimension and int64", file.string(), name));
    }
    return tensors.at(name);
  };
  Scores scores{ids(std::string(kQueryIds)), {}};
  for (const auto& name : tensors.names()) {
    const auto suffix = stage_suffix(name);
    if (!suffix) {
      continue;
    }
    StageScores stage{name, tensors.at(name), ids(example_ids_name(*suffix))};
    const std::vector<std::int64_t> expected{scores.query_ids.numel(), stage.example_ids.numel()};
    if (stage.scores.sizes() != at::IntArrayRef(expected) || !stage.scores.is_floating_point()) {
      throw DataError(fmt::format("{}: tensor \"{}\" is {} [{}], expected floating [{}]", file.string(), name,
                                  at::toString(stage.scores.scalar_type()), fmt::join(stage.scores.sizes(), ", "),
                                  fmt::join(expected, ", ")));
    }
    scores.stages.push_back(std::move(stage));
  }
  if (scores.stages.empty()) {
    throw DataError(fmt::format("{}: no tensor \"scores\" or \"scores.STAGE\"", file.string()));
  }
  return scores;
}

}  // namespace whence
