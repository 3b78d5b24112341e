#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/text/text_template.h"

using namespace whence;

TEST_SUITE_BEGIN("text");

TEST_CASE(
    "a text template: columns are filled in where they stand, as often as they stand, and doubled braces are braces") {
  const std::vector<std::string> columns{"answer", "question", "n"};
  const TextTemplate text("{{{question}}} is {n}, not {n}: {answer}!", "template", columns);
  CHECK_FALSE(text.masks());
  CHECK(text.order() == std::vector<std::size_t>{1, 2, 2, 0});
  std::vector<std::size_t> begins;
  CHECK(text.fill({"{no}", "é?", ""}, &begins) == "{é?} is , not : {no}!");  // a cell's braces are its own
  CHECK(begins == std::vector<std::size_t>{1, 9, 15, 17});
}

TEST_CASE("a text template: {mask} is the mask's token where there is one, before a column of that name") {
  const TextTemplate masked("{mask}: {text}", "template", {"text", "mask"}, "[MASK]");
  CHECK(masked.masks());
  CHECK(masked.order() == std::vector<std::size_t>{0});
  CHECK(masked.fill({"a", "b"}) == "[MASK]: a");
  const TextTemplate unmasked("{mask}: {text}", "template", {"text", "mask"});
  CHECK_FALSE(unmasked.masks());
  CHECK(unmasked.fill({"a", "b"}) == "b: a");
}

TEST_CASE("a text template that cannot be filled says why") {
  const auto make = [](const char* pattern) { return TextTemplate(pattern, "data: template", {"text", "label"}); };
  CHECK_MESSAGE_HOLDS(InvalidArgument, "data: template = \"{text\": a brace has no end", make("{text"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "unknown column \"test\"; did you mean \"text\"?", make("{test}"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "has no placeholder, expected a column in braces: {text}", make("{{text}}"));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "unknown column \"mask\"", make("{mask} {text}"));
}
