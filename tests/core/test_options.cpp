#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/options.h"
#include "whence/core/registry.h"
#include "whence/curvature/curvature.h"
#include "whence/solvers/solver.h"

namespace whence::test {
namespace {

struct KnobOptions {
  double rate = 0.1;
  std::int64_t depth = 3;
  bool exact = false;
  std::string kind = "tanh";
  std::vector<std::int64_t> widths = {64, 32};
  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("rate", self.rate, kUnitInterval, "step");
    field("depth", self.depth, kAtLeastOne, "layers");
    field("exact", self.exact, kAny, "whether");
    field("kind", self.kind, OneOf{"tanh|relu"}, "activation");
    field("widths", self.widths, kAtLeastOne, "sizes");
  }
};

struct Knob {
  explicit Knob(KnobOptions o) : options(std::move(o)) {}
  KnobOptions options;
};
WHENCE_METHOD(Knob, round_knob, Knob, KnobOptions)
WHENCE_METHOD(Knob, square_knob, Knob, KnobOptions)

}  // namespace
}  // namespace whence::test

template <>
whence::Room<whence::test::Knob>& whence::room_of<whence::test::Knob>() {
  using whence::test::Knob;
  static Room<Knob> room{"knob",
                         {{"round", "turns", "none", &test::make_round_knob, &test::options_round_knob},
                          {"square", "does not", "none", &test::make_square_knob, &test::options_square_knob}}};
  return room;
}

namespace whence::test {
namespace {

KnobOptions read(const char* text) { return parse<KnobOptions>(text, "knob"); }

TEST_SUITE_BEGIN("core");

TEST_CASE("options: defaults, and every type is read") {
  CHECK(read("").depth == 3);
  const auto all = read("widths=5/6/7,rate=1e-3,depth=9,exact=true,kind=relu");
  CHECK(all.rate == 1e-3);
  CHECK(all.depth == 9);
  CHECK(all.exact);
  CHECK(all.kind == "relu");
  CHECK(all.widths == std::vector<std::int64_t>{5, 6, 7});
}

TEST_CASE("options: describe writes what parse reads back") {
  const auto given = read("rate=0.30000000000000004,depth=123456789012,exact=true,widths=1/2");
  std::string text;
  for (const auto& info : describe(given)) {
    text += (text.empty() ? "" : ",") + info.name + "=" + info.value;
  }
  const auto back = read(text.c_str());
  CHECK(back.rate == given.rate);
  CHECK(back.depth == given.depth);
  CHECK(back.exact);
  CHECK(back.widths == given.widths);
  CHECK(describe(given)[0].bound == "in [0, 1]");
  CHECK(describe(given)[0].help == "step");
}

TEST_CASE("options: bounds include their ends, and name the option, the value and what was expected") {
  CHECK(read("rate=0").rate == 0);
  CHECK(read("rate=1").rate == 1);
  CHECK_MESSAGE_HOLDS(InvalidArgument, "knob: option rate = 2, expected in [0, 1]", read("rate=2"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "knob: option rate = nan, expected in [0, 1]", read("rate=nan"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "knob: option depth = 0, expected >= 1", read("depth=0"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "knob: option kind = gelu, expected tanh|relu", read("kind=gelu"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "knob: option widths = 4/0", read("widths=4/0"));
}

TEST_CASE("options: two words at once are not one of the words") {
  CHECK_MESSAGE_HOLDS(InvalidArgument, "knob: option kind = tanh|relu", read("kind=tanh|relu"));
}

TEST_CASE("options: what cannot be read is refused whole") {
  for (const char* text : {"rate=0.5x", "rate=", "rate", "rate= 0.5"}) {
    INFO(text);
    CHECK_MESSAGE_HOLDS(InvalidArgument, "knob: option rate: cannot read", read(text));
  }
  for (const char* text :
       {"depth=1.5", "depth=99999999999999999999", "exact=yes", "exact=1", "widths=", "widths=4//5", "widths=4/x"}) {
    INFO(text);
    CHECK_MESSAGE_HOLDS(InvalidArgument, "cannot read", read(text));
  }
}

TEST_CASE("options: one given twice is refused, and what is no option of a method without any is told so") {
  CHECK_MESSAGE_HOLDS(InvalidArgument, "knob: option depth is given twice, expected once",
                      read("depth=1,rate=0,depth=1"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "knob: option exact is given twice", read("exact,exact=false"));
  try {
    parse<NoOptions>("x=1", "bare");
    FAIL("an option of none was taken");
  } catch (const InvalidArgument& error) {
    CHECK(std::string(error.what()) == "bare: unknown option \"x\", expected none");
  }
}

TEST_CASE("options: what is true or false says so") {
  CHECK_MESSAGE_HOLDS(InvalidArgument, "knob: option exact: cannot read \"yes\", expected true or false",
                      read("exact=yes"));
  CHECK(describe(KnobOptions())[2].bound == "true or false");
}

TEST_CASE("options: no word is none of the words, and a text that may be any may be empty") {
  CHECK_MESSAGE_HOLDS(InvalidArgument, "knob: option kind = , expected tanh|relu", read("kind="));
  for (const auto& method : methods<Curvature>()) {  // what run.json holds is read back, ekfac's `factors=` too
    const auto spec = resolved_spec<Curvature>(method.name);
    CAPTURE(spec);
    CHECK(resolved_spec<Curvature>(spec) == spec);
  }
  for (const auto& method : methods<Solver>()) {
    const auto spec = resolved_spec<Solver>(method.name);
    CAPTURE(spec);
    CHECK(resolved_spec<Solver>(spec) == spec);
  }
}

TEST_CASE("options: an unknown name lists the known ones and offers the nearest") {
  CHECK_MESSAGE_HOLDS(InvalidArgument,
                      "knob: unknown option \"dept\"; did you mean \"depth\"? known: rate, depth, exact, kind, widths",
                      read("dept=3"));
  const auto far = message_of<InvalidArgument>([] { read("temperature=3"); });
  CHECK(far.find("did you mean") == far.npos);
  CHECK(far.find("known: rate, depth") != far.npos);
  CHECK_MESSAGE_HOLDS(InvalidArgument, "unknown option \"\"", read("rate=0.5,,depth=2"));
}

TEST_CASE("registry: a spec makes its method, with the options behind the colon") {
  CHECK(create<Knob>("round")->options.depth == 3);
  CHECK(create<Knob>("square:depth=7,kind=relu")->options.depth == 7);
  CHECK(resolved_spec<Knob>("round:depth=2") == "round:rate=0.1,depth=2,exact=false,kind=tanh,widths=64/32");
  CHECK(resolved_spec<Knob>(resolved_spec<Knob>("square:rate=0.25")) == resolved_spec<Knob>("square:rate=0.25"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "unknown knob \"rund\"; did you mean \"round\"? known: round, square",
                      create<Knob>("rund:depth=2"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "unknown knob \"\"", create<Knob>(""));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "round-knob: unknown option \"x\"", create<Knob>("round:x=1"));
}

TEST_CASE("a program's own method is made by its name, behind the room's, and no name is given twice") {
  const auto* round = find_method<Knob>("round").first;
  add_method<Knob, Knob, KnobOptions>("oval", "nearly turns");
  CHECK(find_method<Knob>("round").first == round);  // and what was found before holds
  CHECK(method_names<Knob>() == std::vector<std::string>{"round", "square", "oval"});
  CHECK(create<Knob>("oval:depth=7")->options.depth == 7);
  CHECK(resolved_spec<Knob>("oval").starts_with("oval:rate=0.1,depth=3,"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "oval: unknown option \"x\"", create<Knob>("oval:x=1"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "did you mean \"oval\"? known: round, square, oval", create<Knob>("ovl"));
  const auto again = [](const char* name) { add_method<Knob, Knob, KnobOptions>(name, "turns"); };
  CHECK_MESSAGE_HOLDS(InvalidArgument, "knob \"oval\": there is one already, expected none of round, square, oval",
                      again("oval"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "knob \"round\": there is one already", again("round"));
  for (const char* name : {"", "two words", "with:colon", "with_line", "Oval"}) {
    CAPTURE(name);
    CHECK_MESSAGE_HOLDS(InvalidArgument, "expected a name of small letters, digits and hyphens", again(name));
  }
  CHECK(methods<Knob>().size() == 3);
  CHECK_MESSAGE_HOLDS(InvalidArgument, "solver \"cg\": there is one already",
                      add_method<Solver>({"cg", "", "", {}, {}}));
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
