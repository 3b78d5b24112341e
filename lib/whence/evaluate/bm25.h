#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace whence {

/// Words of a text: runs of letters and digits, ASCII ones in small letters; bytes of other scripts are letters.
std::vector<std::string> words_of(const std::string& text);

/// How well each of the `texts` [N] answers each of the `queries` [Q] by the words that they share: [Q, N] float64, of
/// BM25 with k1 = 1.2, b = 0.75 and the inverse document frequency ln(1 + (N - n + 0.5) / (n + 0.5)). S. Robertson and
/// H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, eq. 3.15. A word of a query counts as
/// often as it stands there. What any attribution of texts has to beat.
at::Tensor bm25(const std::vector<std::string>& queries, const std::vector<std::string>& texts);

}  // namespace whence
