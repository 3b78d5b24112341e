#include "whence/data/dataset_digest.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "whence/core/chunks.h"
#include "whence/core/digest.h"

namespace whence {
namespace {

std::string digest_of(const Dataset& data) {
  Digest digest;
  const auto& texts = data.texts();
  digest.add(fmt::format("dataset 1: {} of kind {}, vocabulary {}", data.size(), static_cast<int>(data.target_kind()),
                         texts.vocabulary));
  for (const auto& name : data.classes()) {
    digest.add(name);
  }
  for (const auto* part : {&data.ids(), &data.targets(), &texts.begins, &texts.lengths, &texts.asked, &texts.words}) {
    digest.add(*part);
  }
  if (!data.is_text()) {
    digest.add(c10::toString(data.batch(0, 0).inputs.scalar_type()));
    std::int64_t bytes_each = 8;
    for (const auto side : data.input_shape()) {
      digest.add(std::to_string(side));
      bytes_each *= side;
    }
    in_chunks(data.size(), bytes_each,
              [&](std::int64_t begin, std::int64_t count) { digest.values(data.batch(begin, begin + count).inputs); });
    return digest.text();
  }
  for (const auto* part : {&texts.tokens, &texts.types, &texts.targets}) {
    digest.add(part->defined() ? c10::toString(part->scalar_type()) : "none");
    for (std::int64_t i = 0; part->defined() && i < data.size(); ++i) {  // of all tokens those that are left
      digest.values(part->narrow(0, texts.begins[i].item<std::int64_t>(), texts.lengths[i].item<std::int64_t>()));
    }
  }
  return digest.text();
}

}  // namespace

std::string dataset_digest(const Dataset& data) {
  return data.digest([&] { return digest_of(data); });
}

}  // namespace whence
