#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

/// Wall seconds of the work: the median of `times`.
double median_seconds(const std::function<void()>& work, int times = 5);

/// The entries of a tensor of any type.
std::vector<double> numbers(const at::Tensor& x);
