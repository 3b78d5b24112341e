#pragma once
#include <string>
#include <vector>

#include "whence/data/dataset.h"
#include "whence/data/detail/keys.h"

namespace whence::detail {

/// How a trainer of images shifted and scaled their channels after they were 0 to 1: torchvision's Normalize.
struct ChannelKeys {
  std::vector<double> mean, deviation;

  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("mean", self.mean, Takes{"a number, or a list with one for each channel", "none"},
          "what is subtracted from each channel, in 0 to 1 where pixels are bytes");
    field("std", self.deviation, Takes{"a number > 0, or a list with one for each channel", "none"},
          "what each channel is then divided by");
  }
};

/// Puts what a table of `format` says of its inputs' channels into `contents`, whose inputs are there: [N, C, H, W], or
/// of one channel [N, H, W], or [N, C]. Throws InvalidArgument naming the key.
void read_channels(const nlohmann::json& table, const std::string& format, Dataset::Contents& contents);

}  // namespace whence::detail
