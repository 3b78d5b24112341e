#include "whence/evaluate/bm25.h"

#include <ATen/ATen.h>

#include <cmath>
#include <map>
#include <unordered_map>
#include <utility>

namespace whence {

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> out;
  bool inside = false;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool upper = byte >= 'A' && byte <= 'Z';
    const bool letter = upper || (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte >= 0x80;
    if (letter && !inside) {
      out.emplace_back();
    }
    if (letter) {
      out.back() += upper ? static_cast<char>(byte - 'A' + 'a') : c;
    }
    inside = letter;
  }
  return out;
}

at::Tensor bm25(const std::vector<std::string>& queries, const std::vector<std::string>& texts) {
  constexpr double kSaturation = 1.2, kLength = 0.75;
  std::unordered_map<std::string, std::vector<std::pair<std::int64_t, double>>> places;  // of each word: text, times
  std::vector<double> lengths;
  double total = 0;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    std::map<std::string, double> times;
    const auto words = words_of(texts[i]);
    for (const auto& word : words) {
      times[word] += 1;
    }
    for (const auto& [word, count] : times) {
      places[word].emplace_back(static_cast<std::int64_t>(i), count);
    }
    lengths.push_back(static_cast<double>(words.size()));
    total += lengths.back();
  }
  const auto n = static_cast<double>(texts.size());
  const double mean = total > 0 ? total / n : 1;
  auto out =
      at::zeros({static_cast<std::int64_t>(queries.size()), static_cast<std::int64_t>(texts.size())}, at::kDouble);
  for (std::size_t q = 0; q < queries.size(); ++q) {
    auto* row = out.data_ptr<double>() + q * texts.size();
    for (const auto& word : words_of(queries[q])) {
      const auto found = places.find(word);
      if (found == places.end()) {
        continue;
      }
      const auto holding = static_cast<double>(found->second.size());
      const double weight = std::log(1 + (n - holding + 0.5) / (holding + 0.5));
      for (const auto& [text, times] : found->second) {
        const double length = lengths[static_cast<std::size_t>(text)] / mean;
        row[text] += weight * times * (kSaturation + 1) / (times + kSaturation * (1 - kLength + kLength * length));
      }
    }
  }
  return out;
}

}  // namespace whence
