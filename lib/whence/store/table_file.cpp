#include "whence/store/table_file.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/json.h"
#include "whence/core/tensors.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

std::int64_t rows_of(const std::vector<OutputColumn>& columns) {
  std::int64_t rows = -1;
  for (const auto& column : columns) {
    const auto here =
        column.numbers.defined() ? column.numbers.numel() : static_cast<std::int64_t>(column.texts.size());
    if (rows >= 0 && here != rows) {
      throw InvalidArgument(fmt::format("column {} has {} rows, expected {}", column.name, here, rows));
    }
    rows = here;
    if (column.numbers.defined() && column.numbers.is_floating_point()) {
      check_finite(column.numbers, "a number to be written");
    }
  }
  return rows;
}

/// The shortest text that is read back as the same number.
std::string number_text(const at::Tensor& x, std::int64_t row) {
  switch (x.scalar_type()) {
    case at::kLong:
      return fmt::format("{}", x.const_data_ptr<std::int64_t>()[row]);
    case at::kFloat:
      return fmt::format("{}", x.const_data_ptr<float>()[row]);
    default:
      return fmt::format("{}", x.const_data_ptr<double>()[row]);
  }
}

/// A spreadsheet takes what begins so for a formula, which may call programs; an apostrophe before it makes it text. A
/// number is one.
bool is_formula(const std::string& text) {
  if (text.empty() || std::string_view("=+-@\t\r").find(text.front()) == std::string_view::npos) {
    return false;
  }
  double number = 0;
  const char* const end = text.data() + text.size();
  return std::from_chars(text.data() + (text.front() == '+' ? 1 : 0), end, number).ptr != end;
}

std::string csv_cell(const std::string& given) {
  const auto text = is_formula(given) ? "'" + given : given;
  if (text.find_first_of(",\"\n\r") == text.npos && (text.empty() || (text.front() != ' ' && text.back() != ' '))) {
    return text;
  }
  std::string out = "\"";
  for (const char c : text) {
    out += c == '"' ? std::string("\"\"") : std::string(1, c);
  }
  return out + '"';
}

/// Columns whose numbers lie in memory one after the other, on the CPU.
std::vector<OutputColumn> ready(std::vector<OutputColumn> columns) {
  for (auto& column : columns) {
    if (column.numbers.defined()) {
      const auto type = column.numbers.scalar_type();
      column.numbers =
          column.numbers.to(at::kCPU, type == at::kLong || type == at::kFloat ? type : at::kDouble).contiguous();
    }
  }
  return columns;
}

/// Code points of UTF-8; bytes that are none become U+FFFD.
std::u32string code_points(const std::string& text) {
  std::u32string out;
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const int more = lead < 0x80                   ? 0
                     : lead >= 0xC2 && lead < 0xE0 ? 1
                     : lead >= 0xE0 && lead < 0xF0 ? 2
                     : lead >= 0xF0 && lead < 0xF5 ? 3
                                                   : -1;
    bool whole = more >= 0 && i + static_cast<std::size_t>(more) < text.size();
    char32_t point = more <= 0 ? lead : lead & (0x3F >> more);
    for (int k = 1; whole && k <= more; ++k) {
      const auto next = static_cast<unsigned char>(text[i + static_cast<std::size_t>(k)]);
      whole = (next & 0xC0) == 0x80;
      point = (point << 6) | (next & 0x3F);
    }
    out += whole ? point : U'\uFFFD';
    i += whole ? static_cast<std::size_t>(more) + 1 : 1;
  }
  return out;
}

void write_array(const fs::path& path, const std::string& type, const std::string& shape, const void* data,
                 std::size_t bytes) {
  auto header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", type, shape);
  constexpr std::size_t kFixed = 10;  // magic, version, length
  header.append(63 - (kFixed + header.size()) % 64, ' ');
  header += '\n';
  write_atomically(path, [&](std::ostream& out) {
    out.write("\x93NUMPY\x01\x00", 8);
    out.put(static_cast<char>(header.size() & 0xFF)).put(static_cast<char>(header.size() >> 8));
    out << header;
    out.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
  });
}

}  // namespace

void write_csv(const fs::path& path, const std::vector<OutputColumn>& columns) {
  const auto rows = rows_of(columns);
  const auto all = ready(columns);
  write_atomically(path, [&](std::ostream& out) {
    for (std::size_t c = 0; c < all.size(); ++c) {
      out << (c == 0 ? "" : ",") << csv_cell(all[c].name);
    }
    out << '\n';
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::size_t c = 0; c < all.size(); ++c) {
        out << (c == 0 ? "" : ",")
            << (all[c].numbers.defined() ? number_text(all[c].numbers, row)
                                         : csv_cell(all[c].texts[static_cast<std::size_t>(row)]));
      }
      out << '\n';
    }
  });
}

void write_jsonl(const fs::path& path, const std::vector<OutputColumn>& columns) {
  const auto rows = rows_of(columns);
  const auto all = ready(columns);
  write_atomically(path, [&](std::ostream& out) {
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::size_t c = 0; c < all.size(); ++c) {
        out << (c == 0 ? "{" : ", ") << json_text(nlohmann::json(all[c].name)) << ": "
            << (all[c].numbers.defined() ? number_text(all[c].numbers, row)
                                         : json_text(nlohmann::json(all[c].texts[static_cast<std::size_t>(row)])));
      }
      out << "}\n";
    }
  });
}

void write_npy(const fs::path& path, const at::Tensor& numbers) {
  const auto type = numbers.scalar_type();
  const auto wanted = type == at::kLong || type == at::kFloat ? type : at::kDouble;
  const auto x = numbers.to(at::kCPU, wanted).contiguous();
  auto shape = fmt::format("{}", fmt::join(x.sizes(), ", "));
  if (x.dim() == 1) {
    shape += ',';
  }
  write_array(path,
              wanted == at::kLong    ? "<i8"
              : wanted == at::kFloat ? "<f4"
                                     : "<f8",
              shape, x.const_data_ptr(), x.nbytes());
}

void write_npy(const fs::path& path, const std::vector<std::string>& texts) {
  std::vector<std::u32string> points;
  std::size_t width = 1;
  for (const auto& text : texts) {
    points.push_back(code_points(text));
    width = std::max(width, points.back().size());
  }
  std::u32string all;
  for (auto& text : points) {
    text.resize(width, U'\0');
    all += text;
  }
  write_array(path, fmt::format("<U{}", width), fmt::format("{},", texts.size()), all.data(), all.size() * 4);
}

}  // namespace whence
