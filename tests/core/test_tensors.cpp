#include <atomic>
#include <thread>

#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/core/parallel.h"
#include "whence/core/parameters.h"
#include "whence/core/random.h"
#include "whence/core/tensors.h"

namespace whence::test {
namespace {

/// Sets the thread count for a scope.
class Threads {
 public:
  explicit Threads(std::int64_t count) : before_(threads()) { set_threads(count); }
  ~Threads() { set_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  std::int64_t before_;
};

TEST_SUITE_BEGIN("core");

TEST_CASE("tensors: flatten and unflatten undo each other") {
  const TensorList list{at::arange(6, at::kDouble).view({2, 3}), at::tensor(7.0, at::kDouble).squeeze(),
                        at::ones({2}, at::kDouble)};
  const auto flat = flatten(list);
  CHECK(count_entries(list) == 9);
  CHECK(at::equal(flat, at::tensor({0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 1.0, 1.0}, at::kDouble)));
  const auto back = unflatten(flat, list);
  REQUIRE(back.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(back[i].sizes() == list[i].sizes());
    CHECK(at::equal(back[i], list[i]));
  }
  CHECK(back[0].const_data_ptr() == flat.const_data_ptr());
}

TEST_CASE("tensors: exact_dot has the same bits for one thread and two, and the accuracy of double") {
  Random random(3);
  for (const auto dtype : {at::kDouble, at::kFloat}) {
    const auto a = random.normal({200'003}).to(dtype), b = random.normal({200'003}).to(dtype);
    double one = 0, two = 0;
    {
      const Threads scope(1);
      one = exact_dot(a, b);
    }
    {
      const Threads scope(2);
      two = exact_dot(a, b);
    }
    CHECK(one == two);
    const double expected = (a.to(at::kDouble) * b.to(at::kDouble)).sum().item<double>();
    CHECK(std::abs(one - expected) < 1e-12 * a.norm().item<double>() * b.norm().item<double>());
    CHECK(exact_dot(TensorList{a, b}, TensorList{b, a}) == one + exact_dot(b, a));
  }
  const auto half = at::ones({4096}, at::kBFloat16) / 3;  // bfloat16 sums would stop growing at 256
  CHECK(exact_dot(half, half) == doctest::Approx(4096 * std::pow(half[0].item<double>(), 2)));
  const auto matrix = random.normal({30, 40});
  CHECK(exact_dot(matrix.t(), matrix.t()) == doctest::Approx(matrix.pow(2).sum().item<double>()));
  CHECK(exact_dot(at::zeros({0}, at::kDouble), at::zeros({0}, at::kDouble)) == 0);
}

TEST_CASE("tensors: row_dots and row_norms are those of each row") {
  Random random(4);
  const auto a = random.normal({3, 1000}), b = random.normal({3, 1000});
  const auto dots = row_dots(a, b);
  CHECK((dots.scalar_type() == at::kDouble));
  CHECK(relative_error(dots, (a * b).sum(1)) < Tolerance::kSameAlgebra);
  CHECK(relative_error(row_norms(a), a.norm(2, 1)) < Tolerance::kSameAlgebra);
  CHECK(dots[1].item<double>() == exact_dot(a[1], b[1]));
  CHECK(relative_error(row_dots(a.to(at::kFloat), b.to(at::kFloat)), dots) < 1e-5);
}

TEST_CASE("tensors: axpy, zeros_like, clone, detach, leaves") {
  const TensorList x{at::ones({2}, at::kDouble)};
  TensorList y{at::arange(2, at::kDouble)};
  const auto before = clone(y);
  axpy(3, x, y);
  CHECK(at::equal(y[0], at::tensor({3.0, 4.0}, at::kDouble)));
  CHECK(at::equal(before[0], at::tensor({0.0, 1.0}, at::kDouble)));
  CHECK(at::equal(zeros_like(x)[0], at::zeros({2}, at::kDouble)));
  const auto tracked = leaves(x);
  CHECK(tracked[0].requires_grad());
  CHECK(!x[0].requires_grad());
  CHECK(tracked[0].const_data_ptr() == x[0].const_data_ptr());
  CHECK(!detach(tracked)[0].requires_grad());
}

TEST_CASE("tensors: gradient, of what is reached and of what is not") {
  const auto x = leaves({at::tensor({2.0, 3.0}, at::kDouble), at::ones({2}, at::kDouble)});
  const auto y = x[0].pow(3).sum();
  const auto first = gradient(y, x, /*create_graph=*/true);
  CHECK(at::equal(first[0], at::tensor({12.0, 27.0}, at::kDouble)));
  CHECK(at::equal(first[1], at::zeros({2}, at::kDouble)));
  const auto second = gradient({first[0], at::ones({1}, at::kDouble)}, {x[0]},
                               {at::tensor({1.0, 10.0}, at::kDouble), at::ones({1}, at::kDouble)});
  CHECK(at::equal(second[0], at::tensor({12.0, 180.0}, at::kDouble)));  // 6 x * cotangent
  CHECK(at::equal(gradient(at::ones({}, at::kDouble), x)[0], at::zeros({2}, at::kDouble)));
}

TEST_CASE("tensors: check_finite counts what is not") {
  check_finite(at::ones({3}), "nothing");
  CHECK_MESSAGE_HOLDS(NumericalError, "the loss is not finite (2 of 3 entries",
                      check_finite(at::tensor({1.0, NAN, INFINITY}, at::kDouble), "the loss"));
  CHECK_MESSAGE_HOLDS(NumericalError, "(1 of 1", check_finite(TensorList{at::ones({2}), at::full({1}, NAN)}, "x"));
}

TEST_CASE("parameters: names, order, and the parts of a set") {
  ParameterSet set;
  set.add("body.w", at::ones({2, 2}));
  set.add("head.w", at::zeros({2}));
  set.add("body.b", at::full({1}, 3.0));
  CHECK(set.entries() == 7);
  CHECK(set.names() == std::vector<std::string>{"body.w", "head.w", "body.b"});
  CHECK(set.at("body.b").item<float>() == 3);
  CHECK(set.contains("head.w"));
  CHECK(!set.contains("head"));
  CHECK(set.select("body.").names() == std::vector<std::string>{"body.w", "body.b"});
  CHECK(set.without("body.").names() == std::vector<std::string>{"head.w"});
  CHECK(set.without(set.select("head.")).names() == std::vector<std::string>{"body.w", "body.b"});
  CHECK(set.select("head.").join(set.select("body.")).names() ==
        std::vector<std::string>{"head.w", "body.w", "body.b"});
  const auto copy = set;
  set.add("late", at::ones({1}));
  CHECK(copy.size() == 3);
  CHECK(copy.with({at::ones({1}), at::ones({1}), at::full({1}, 9.0)}).at("body.b").item<float>() == 9);
  CHECK(ParameterSet().empty());
}

TEST_CASE("parameters: to() copies, detached") {
  ParameterSet set;
  set.add("w", at::ones({2}, at::kDouble).requires_grad_(true));
  const auto copy = set.to(at::kDouble, at::kCPU);
  CHECK(!copy.at("w").requires_grad());
  CHECK(copy.at("w").const_data_ptr() != set.at("w").const_data_ptr());
  CHECK((set.to(at::kFloat, at::kCPU).at("w").scalar_type() == at::kFloat));
}

TEST_CASE("parameters: what is refused") {
  ParameterSet set;
  set.add("body.weight", at::ones({1}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "parameter \"body.weight\" is named twice",
                      set.add("body.weight", at::ones({1})));
  CHECK(set.size() == 1);
  CHECK_MESSAGE_HOLDS(InvalidArgument, "unknown parameter \"body.weigth\"; did you mean \"body.weight\"?",
                      set.at("body.weigth"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "set of 1 tensors, got 2", set.with({at::ones({1}), at::ones({1})}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "named twice", set.join(set));
}

TEST_CASE("random: same seed and name, same bits; streams are independent of what others draw") {
  Random a(5), b(5);
  CHECK(at::equal(a.normal({100}), b.normal({100})));
  CHECK((a.normal({1}).scalar_type() == at::kDouble));
  const auto before = a.stream("order").permutation(50);
  a.normal({1000});
  CHECK(at::equal(a.stream("order").permutation(50), before));
  CHECK(!at::equal(Random(5).stream("a").normal({10}), Random(5).stream("b").normal({10})));
  CHECK(!at::equal(Random(5).stream("a").normal({10}), Random(6).stream("a").normal({10})));
  CHECK(!at::equal(Random(5).stream("a").normal({10}), Random(5).normal({10})));
  const auto x = Random(5).stream("a").normal({20000}), y = Random(5).stream("b").normal({20000});
  CHECK(std::abs((x * y).mean().item<double>()) < 5 / std::sqrt(20000.0));
  CHECK(std::abs(x.mean().item<double>()) < 5 / std::sqrt(20000.0));
  CHECK(std::get<0>(before.sort()).equal(at::arange(50, at::kLong)));
  const auto uniform = Random(5).uniform({10000}, -2, 3);
  CHECK(uniform.min().item<double>() >= -2);
  CHECK(uniform.max().item<double>() < 3);
  CHECK(uniform.mean().item<double>() == doctest::Approx(0.5).epsilon(0.2));
}

TEST_CASE("random: the same bits for any thread count") {
  at::Tensor one, two;
  {
    const Threads scope(1);
    one = Random(9).normal({100'000});
  }
  {
    const Threads scope(2);
    two = Random(9).normal({100'000});
  }
  CHECK(at::equal(one, two));
}

TEST_CASE("parallel: every index is run once") {
  for (const std::int64_t count : {0, 1, 2, 1000}) {
    const Threads scope(2);
    std::vector<std::atomic<int>> runs(static_cast<std::size_t>(count));
    parallel_for(count, [&](std::int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
    for (const auto& run : runs) {
      CHECK(run == 1);
    }
  }
}

TEST_CASE("parallel: an exception comes out after the join") {
  const Threads scope(2);
  std::atomic<std::int64_t> started{0}, ended{0};
  CHECK_MESSAGE_HOLDS(DataError, "at 3", parallel_for(1000, [&](std::int64_t i) {
                        ++started;
                        if (i == 3) {
                          throw DataError("at 3");
                        }
                        ++ended;
                      }));
  CHECK(started == ended + 1);
  std::atomic<int> after{0};
  parallel_for(10, [&](std::int64_t) { ++after; });
  CHECK(after == 10);
}

TEST_CASE("parallel: after an exception, work not begun is skipped") {
  const Threads scope(1);  // in order, so that what is left over is known
  std::int64_t started = 0;
  CHECK_THROWS_AS(parallel_for(1000,
                               [&](std::int64_t i) {
                                 ++started;
                                 if (i == 3) {
                                   throw Interrupted();
                                 }
                               }),
                  Interrupted);
  CHECK(started == 4);
}

TEST_CASE("parallel: between runs on the calling thread, and may stop the work") {
  for (const std::int64_t count : {1, 2}) {
    const Threads scope(count);
    const auto caller = std::this_thread::get_id();
    std::atomic<bool> caller_works{false};
    std::atomic<int> elsewhere{0};
    // Other threads wait for the caller's first item: short work could otherwise be over before it takes one.
    const auto body = [&](std::int64_t) {
      if (std::this_thread::get_id() == caller) {
        caller_works = true;
      }
      while (!caller_works) {
        std::this_thread::yield();
      }
    };
    CHECK_THROWS_AS(parallel_for(100, body,
                                 [&] {
                                   elsewhere += std::this_thread::get_id() == caller ? 0 : 1;
                                   throw Interrupted();
                                 }),
                    Interrupted);
    CHECK(elsewhere == 0);
  }
}

TEST_CASE("parallel: set_threads is what threads() says, and 0 is all cores") {
  const Threads scope(2);
  CHECK(threads() == 2);
  set_threads(0);
  CHECK(threads() >= 1);
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
