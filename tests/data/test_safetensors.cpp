#include <cstring>

#include "support/near.h"
#include "support/scratch.h"
#include "whence/core/error.h"
#include "whence/core/files.h"
#include "whence/core/random.h"
#include "whence/data/safetensors.h"

namespace whence::test {
namespace {

namespace fs = std::filesystem;

/// A safetensors file of this header and these data bytes.
std::string with_header(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

/// Header of one tensor.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"w":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

ParameterSet small_set() {
  ParameterSet set;
  set.add("w", at::arange(6, at::kFloat).view({2, 3}));
  set.add("b", at::tensor({1.5, -2.5}, at::kDouble));
  set.add("on", at::tensor({1, 0, 1}, at::kLong).to(at::kBool));
  return set;
}

TEST_SUITE_BEGIN("data");

TEST_CASE("safetensors: every dtype and shape survives a round trip") {
  const Scratch scratch;
  ParameterSet set;
  const auto numbers = at::arange(-3, 9, at::kDouble).view({3, 2, 2});
  for (const auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort,
                           at::kChar, at::kByte, at::kBool}) {
    set.add(std::string("t.") + c10::toString(dtype), (dtype == at::kByte ? numbers.abs() : numbers).to(dtype));
  }
  set.add("scalar", at::tensor(2.5, at::kDouble).squeeze());
  set.add("empty", at::zeros({0, 4}, at::kFloat));
  set.add("odd", at::ones({3}, at::kByte));
  set.add("transposed", at::arange(6, at::kFloat).view({2, 3}).t());
  const std::map<std::string, std::string> metadata{{"format", "pt"}, {"\"quoted\"", "line\nend, \xC3\xA9"}};
  for (const std::string name : {"a.safetensors", "packed.safetensors"}) {
    write_safetensors(scratch / name, set, metadata);
  }
  scratch.put("packed.safetensors.gz", bytes_of(scratch / "packed.safetensors"));
  CHECK(bytes_of(scratch / "a.safetensors") == bytes_of(scratch / "packed.safetensors"));
  for (const std::string name : {"a.safetensors", "packed.safetensors.gz"}) {
    const auto back = read_safetensors(scratch / name);
    REQUIRE(back.size() == set.size());
    for (std::size_t i = 0; i < set.size(); ++i) {
      const auto& expected = set.values()[i];
      const auto& read = back.at(set.names()[i]);
      INFO(set.names()[i]);
      CHECK((read.scalar_type() == expected.scalar_type()));
      CHECK(read.sizes() == expected.sizes());
      CHECK(at::equal(read, expected));
    }
    CHECK(read_safetensors_metadata(scratch / name) == metadata);
  }
}

TEST_CASE("safetensors: the file is laid out as the format says, every tensor aligned") {
  const Scratch scratch;
  write_safetensors(scratch / "s", small_set(), {{"k", "v"}});
  const auto bytes = bytes_of(scratch / "s");
  const std::string header =
      R"({"__metadata__":{"k":"v"},"b":{"dtype":"F64","shape":[2],"data_offsets":[0,16]},)"
      R"("w":{"dtype":"F32","shape":[2,3],"data_offsets":[16,40]},"on":{"dtype":"BOOL","shape":[3],"data_offsets":[40,43]}})";
  const auto padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  CHECK(bytes.substr(0, bytes.size() - 43) == with_header(padded, ""));
  CHECK(bytes.substr(bytes.size() - 3) == std::string("\1\0\1", 3));
  CHECK((bytes.size() - 43) % 8 == 0);
  CHECK(read_safetensors(scratch / "s").names() == std::vector<std::string>{"b", "w", "on"});
}

TEST_CASE("safetensors: tensors outlive the deleted file") {
  const Scratch scratch;
  write_safetensors(scratch / "s", small_set());
  const auto w = read_safetensors(scratch / "s").at("w");
  fs::remove(scratch / "s");
  CHECK(at::equal(w, small_set().at("w")));
  CHECK(read_safetensors_metadata(scratch.put("none", with_header("{}", ""))).empty());
}

TEST_CASE("safetensors: an odd header length leaves tensors that are read all the same") {
  const Scratch scratch;
  std::string data(16, '\0');
  const double values[] = {1.25, -7};
  std::memcpy(data.data(), values, 16);
  for (const std::string pad : {"", " ", "  ", "   "}) {
    const auto path = scratch.put("odd", with_header(one("F64", "[2]", "[0,16]") + pad, data));
    CHECK(at::equal(read_safetensors(path).at("w"), at::tensor({1.25, -7.0}, at::kDouble)));
  }
}

TEST_CASE("safetensors: every truncation is an error that names the file") {
  const Scratch scratch;
  write_safetensors(scratch / "whole", small_set(), {{"k", "v"}});
  const auto bytes = bytes_of(scratch / "whole");
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    INFO("first ", size, " of ", bytes.size(), " bytes");
    const auto path = scratch.put("cut.safetensors", bytes.substr(0, size));
    CHECK_MESSAGE_HOLDS(DataError, "cut.safetensors: ", read_safetensors(path));
  }
  CHECK_MESSAGE_HOLDS(DataError, "bytes 43 to 44 of the data belong to no tensor",
                      read_safetensors(scratch.put("long", bytes + "x")));
}

TEST_CASE("safetensors: a damaged header is an error or a valid set, never a crash") {
  const Scratch scratch;
  write_safetensors(scratch / "whole", small_set(), {{"k", "v"}});
  const auto bytes = bytes_of(scratch / "whole");
  const auto header_end = static_cast<std::int64_t>(bytes.size()) - 43;
  Random random(7);
  int refused = 0;
  constexpr int kFlips = 500;
  for (int trial = 0; trial < kFlips; ++trial) {
    auto damaged = bytes;
    const auto draw = random.uniform({2}, 0, 1);
    const auto place = static_cast<std::size_t>(draw[0].item<double>() * static_cast<double>(header_end));
    damaged[place] = static_cast<char>(damaged[place] ^ (1 << static_cast<int>(draw[1].item<double>() * 8)));
    const auto path = scratch.put("flipped", damaged);
    try {
      const auto set = read_safetensors(path);
      for (const auto& value : set.values()) {
        CHECK(value.numel() * value.element_size() <= 43);
      }
    } catch (const DataError&) {
      ++refused;
    }
  }
  CHECK(refused > kFlips / 2);
  CHECK(refused < kFlips);  // a flip in a name or in the padding's place can leave a good file
}

TEST_CASE("safetensors: what each refusal says") {
  const Scratch scratch;
  const auto refusal = [&](const std::string& header, std::size_t data = 16) {
    const auto path = scratch.put("bad", with_header(header, std::string(data, '\2')));
    return message_of<DataError>([&] { read_safetensors(path); });
  };
  const auto holds = [](const std::string& text, const std::string& part) {
    CHECK_MESSAGE(text.find(part) != text.npos, "expected \"", part, "\" in \"", text, "\"");
  };
  holds(refusal(one("F64", "[2]", "[0,16]")), "");
  CHECK(refusal(one("F64", "[2]", "[0,16]")).empty());
  holds(refusal("{\"a\" 1}"), "not JSON at byte 13");
  holds(refusal(""), "not JSON");
  holds(refusal("[1]"), "JSON array, expected an object");
  holds(refusal("{\"w\": 1e999}"), "number overflow");
  holds(refusal(std::string(100000, '[')), "nests deeper");
  holds(refusal("{\"w\":3}"), "tensor \"w\" has no dtype");
  holds(refusal(one("F8", "[2]", "[0,16]")), "dtype \"F8\", expected one of F64, F32");
  holds(refusal(one("F64", "[-2]", "[0,16]")), "shape is [-2]");
  holds(refusal(one("F64", "[2.0]", "[0,16]")), "shape is [2.0]");
  holds(refusal(one("F64", "2", "[0,16]")), "shape is 2");
  holds(refusal(R"({"w":{"dtype":"F64","shape":[2]}})"), "data_offsets is missing");
  holds(refusal(one("F64", "[9223372036854775808]", "[0,16]")), "expected a list of numbers in [0, 2^63)");
  holds(refusal(one("F64", "[4611686018427387904,4611686018427387904]", "[0,0]")), "overflows");
  holds(refusal(one("F64", "[0,4611686018427387904,4611686018427387904]", "[0,0]")), "overflows");
  holds(refusal(one("F64", "[2305843009213693954]", "[0,16]")), "overflows");  // wraps round to 16 bytes in 64 bits
  const auto ones = [](std::size_t count) {
    std::string shape = "[16";
    for (std::size_t i = 1; i < count; ++i) {
      shape += ",1";
    }
    return shape + "]";
  };
  CHECK(refusal(one("U8", ones(64), "[0,16]")).empty());
  holds(refusal(one("U8", ones(65), "[0,16]")), "tensor \"w\" has 65 dimensions, expected at most 64");
  holds(refusal(one("F64", "[2]", "[0,17]")), "within the 16 bytes of data");
  holds(refusal(one("F64", "[2]", "[16,0]")), "data_offsets [16, 0]");
  holds(refusal(one("F64", "[2]", "[0]")), "data_offsets [0]");
  holds(refusal(one("F64", "[1]", "[0,16]")), "16 bytes at byte 0 of the data, expected 8 for F64 [1]");
  holds(refusal(one("F64", "[1]", "[8,16]")), "leaves a hole from byte 0");
  holds(refusal(one("F64", "[1]", "[0,8]")), "bytes 8 to 16 of the data belong to no tensor");
  holds(
      refusal(
          R"({"a":{"dtype":"U8","shape":[12],"data_offsets":[0,12]},"b":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}})"),
      "tensor \"b\" overlaps another before byte 12");
  holds(
      refusal(
          R"({"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})"),
      "names \"a\" twice");
  holds(refusal(one("BOOL", "[16]", "[0,16]")), "byte 0 of its data is 2, expected 0 or 1");
  holds(refusal(R"({"__metadata__":{"a":1},"w":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}})"),
        "expected a string");
  holds(refusal(R"({"__metadata__":[],"w":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}})"), "expected an object");

  std::string huge(8, '\0');
  const std::uint64_t length = 100'000'001;
  std::memcpy(huge.data(), &length, 8);
  CHECK_MESSAGE_HOLDS(DataError, "header length 100000001 at byte 0, expected at most 100000000",
                      read_safetensors(scratch.put("huge", huge)));
  CHECK_MESSAGE_HOLDS(DataError, "header length 18446744073709551615",
                      read_safetensors(scratch.put("huge", std::string(8, '\xff'))));
  CHECK_MESSAGE_HOLDS(DataError, "No such file", read_safetensors(scratch / "missing"));
}

TEST_CASE("safetensors: 20,000 tensors are read in proportion") {  // they took minutes
  const Scratch scratch;
  std::string header = "{";
  constexpr int kTensors = 20'000;
  for (int i = 0; i < kTensors; ++i) {
    header += fmt::format(R"("t{}":{{"dtype":"U8","shape":[1],"data_offsets":[{},{}]}},)", i, i, i + 1);
  }
  header.back() = '}';
  const auto read = read_safetensors(scratch.put("many", with_header(header, std::string(kTensors, '\1'))));
  CHECK(read.size() == kTensors);
  auto copy = read;  // copies share what they do not change
  copy.add("more", at::zeros({1}));
  CHECK(copy.size() == kTensors + 1);
  CHECK_FALSE(read.contains("more"));
}

TEST_CASE("safetensors: what cannot be written is refused and leaves no file") {
  const Scratch scratch;
  ParameterSet complex_set, reserved, latin;
  complex_set.add("z", at::zeros({2}, at::kComplexFloat));
  reserved.add("__metadata__", at::zeros({2}));
  latin.add("\xE9", at::zeros({2}));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "tensor \"z\" is ComplexFloat, expected one of F64",
                      write_safetensors(scratch / "s", complex_set));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "__metadata__", write_safetensors(scratch / "s", reserved));
  CHECK_MESSAGE_HOLDS(InvalidArgument, "not UTF-8", write_safetensors(scratch / "s", latin));
  CHECK(fs::is_empty(scratch.folder()));
}

TEST_CASE("safetensors: real checkpoints") {
  const fs::path models = fs::path(WHENCE_SHARED) / "models";
  if (!fs::exists(models)) {
    MESSAGE("skipped: no ", models.string());
    return;
  }
  const auto stories = models / "stories260k" / "model.safetensors";
  const auto story = read_safetensors(stories);
  CHECK(story.at("model.embed_tokens.weight").sizes() == at::IntArrayRef({512, 64}));
  CHECK(story.at("model.layers.0.mlp.down_proj.weight").sizes() == at::IntArrayRef({64, 172}));
  CHECK(story.entries() > 200'000);
  CHECK(read_safetensors_metadata(stories).at("format") == "pt");
  const auto resnet = read_safetensors(models / "resnet20-cifar10" / "model.safetensors");
  CHECK(resnet.at("bn1.running_var").sizes() == at::IntArrayRef({16}));
  CHECK(resnet.at("bn1.running_var").min().item<double>() > 0);
  for (const auto& set : {story, resnet}) {
    const Scratch scratch;
    write_safetensors(scratch / "copy", set);
    const auto copy = read_safetensors(scratch / "copy");
    REQUIRE(copy.size() == set.size());
    for (std::size_t i = 0; i < set.size(); ++i) {
      CHECK(at::equal(copy.at(set.names()[i]), set.values()[i]));
    }
  }
}

TEST_SUITE_END();

}  // namespace
}  // namespace whence::test
