#include "whence/core/json.h"

#include <fmt/format.h>

#include <limits>
#include <optional>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "whence/core/progress.h"

namespace whence {
namespace {

constexpr std::size_t kShown = 160;  // bytes of what a message repeats

std::string cut(std::string text) {
  if (text.size() > kShown) {
    auto end = kShown;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) {  // within a character
      --end;
    }
    text.resize(end);
    text += "…";
  }
  return text;
}

/// Takes the parser's events and makes a value of them, as nlohmann's own builder does, which looks through an object
/// for each new key (ordered_json) or for each end of an object within it (with a callback).
template <class Json>
class Builder {
 public:
  Builder(const std::string& where, const JsonRules& rules) : where_(where), rules_(rules) {}

  Json take() && { return std::move(root_); }

  bool null() { return put(nullptr); }
  bool boolean(bool value) { return put(value); }
  bool number_integer(std::int64_t value) { return put(value); }
  bool number_unsigned(std::uint64_t value) { return put(value); }
  bool number_float(double value, const std::string&) { return put(value); }
  bool string(std::string& value) { return put(std::move(value)); }
  template <class Binary>
  bool binary(Binary&) {
    return false;  // no text holds one
  }
  bool start_object(std::size_t) { return open(Json::object()); }
  bool start_array(std::size_t) { return open(Json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    auto& frame = frames_.back();
    bool repeated = false;
    if constexpr (kOrdered) {
      const auto [found, made] = frame.places.emplace(name, frame.members.size());
      repeated = !made;
      if (made) {
        frame.members.emplace_back(name, nullptr);
      }
      next_ = &frame.members[found->second].second;
    } else {
      const auto [found, made] = frame.value->template get_ref<typename Json::object_t&>().emplace(name, nullptr);
      repeated = !made;
      next_ = &found->second;
    }
    if (repeated && !rules_.repeated_keys) {
      throw DataError(fmt::format("{}: names \"{}\" twice", where_, cut(name)));
    }
    return true;
  }

  template <class Exception>
  bool parse_error(std::size_t byte, const std::string&, const Exception& error) {
    const auto place = rules_.first_byte + byte - (byte > 0 ? 1 : 0);
    std::string_view said = error.what();  // "[json.exception.parse_error.101] parse error at line 1, …: what is wrong"
    said.remove_prefix(std::min(said.size(), said.find("] ") == said.npos ? 0 : said.find("] ") + 2));
    said.remove_prefix(said.starts_with("parse error") && said.find(": ") != said.npos ? said.find(": ") + 2 : 0);
    throw DataError(fmt::format("{}: not JSON at byte {} ({})", where_, place, cut(std::string(said))));
  }

 private:
  static constexpr bool kOrdered = std::is_same_v<Json, nlohmann::ordered_json>;
  /// Of an ordered object that is open also its members, and where its keys are. In the object itself, which is a
  /// vector of pairs with constant keys, each growth would copy all that it holds, to whatever depth.
  struct Frame {
    Json* value;
    std::vector<std::pair<std::string, Json>> members = {};
    std::unordered_map<std::string, std::size_t> places = {};
  };
  static_assert(std::is_nothrow_move_constructible_v<Frame>);  // members stay where they are when frames_ grows

  template <class Value>
  bool put(Value&& value) {
    place() = std::forward<Value>(value);
    return true;
  }

  bool open(Json empty) {
    if (frames_.size() >= static_cast<std::size_t>(rules_.depth)) {
      throw DataError(fmt::format("{}: nests deeper than {} lists and objects", where_, rules_.depth));
    }
    auto& value = place();
    value = std::move(empty);
    frames_.push_back({&value});
    return true;
  }

  bool close() {
    if constexpr (kOrdered) {
      if (auto& frame = frames_.back(); frame.value->is_object()) {
        auto& object = frame.value->template get_ref<typename Json::object_t&>();
        object.reserve(frame.members.size());
        for (auto& [name, value] : frame.members) {
          object.emplace_back(std::move(name), std::move(value));
        }
      }
    }
    frames_.pop_back();
    return true;
  }

  /// Where the next value belongs.
  Json& place() {
    constexpr std::uint64_t kBetweenChecks = 1 << 16;
    if (++values_ % kBetweenChecks == 0) {
      check_interruption();
    }
    if (frames_.empty()) {
      return root_;
    }
    auto& holder = *frames_.back().value;
    return holder.is_array() ? holder.template get_ref<typename Json::array_t&>().emplace_back(nullptr) : *next_;
  }

  const std::string& where_;
  const JsonRules& rules_;
  Json root_;
  std::vector<Frame> frames_;  // the lists and objects that are open
  Json* next_ = nullptr;       // the value of the key met last
  std::uint64_t values_ = 0;
};

/// "2.5", "a list of 3 values": what stands there, in short.
std::string told(const JsonView::Value& value) {
  if (value.is_structured()) {
    return fmt::format("{} of {}", value.is_array() ? "a list" : "an object", value.size());
  }
  return cut(json_text(value));
}

/// The way from `from` to the value that lies at `wanted`.
std::optional<std::string> way_to(const JsonView::Value& from, const JsonView::Value* wanted) {
  if (&from == wanted) {
    return "";
  }
  if (from.is_structured()) {
    std::size_t i = 0;
    for (auto at = from.begin(); at != from.end(); ++at, ++i) {
      if (const auto rest = way_to(*at, wanted)) {
        const auto step = from.is_array() ? fmt::format("[{}]", i) : at.key();
        return step + (rest->empty() || rest->front() == '[' ? "" : ".") + *rest;
      }
    }
  }
  return std::nullopt;
}

template <class T>
constexpr std::string_view kExpected = "a whole number within its range";
template <>
constexpr std::string_view kExpected<bool> = "true or false";
template <>
constexpr std::string_view kExpected<double> = "a number";
template <>
constexpr std::string_view kExpected<std::string> = "a text";
template <>
constexpr std::string_view kExpected<std::pair<std::string, double>> = "a text with a number";

}  // namespace

template <class Json>
Json parse_json(std::string_view text, const std::string& where, const JsonRules& rules) {
  Builder<Json> builder(where, rules);
  Json::sax_parse(text.data(), text.data() + text.size(), &builder);
  return std::move(builder).take();
}
template nlohmann::json parse_json(std::string_view, const std::string&, const JsonRules&);
template nlohmann::ordered_json parse_json(std::string_view, const std::string&, const JsonRules&);

std::string brief(const nlohmann::json& value) { return cut(json_text(value)); }

JsonView::JsonView(Value value, std::string where)
    : file_(std::make_shared<const File>(File{std::move(value), std::move(where)})), value_(&file_->value) {}

JsonView JsonView::operator[](std::string_view key) const {
  if (!value_->is_object()) {
    refuse("an object");
  }
  const auto found = value_->find(key);
  if (found == value_->end()) {
    fail(fmt::format("the key \"{}\" is missing", key));
  }
  return {file_, *found};
}

JsonView JsonView::operator[](std::size_t i) const {
  if (!value_->is_array() || i >= value_->size()) {
    refuse(fmt::format("a list of {} or more", i + 1));
  }
  return {file_, (*value_)[i]};
}

bool JsonView::contains(std::string_view key) const { return value_->is_object() && value_->contains(key); }

std::size_t JsonView::size() const {
  if (!value_->is_structured()) {
    refuse("a list or an object");
  }
  return value_->size();
}

std::vector<JsonView> JsonView::list() const {
  if (!value_->is_array()) {
    refuse("a list");
  }
  std::vector<JsonView> out;
  for (const auto& value : *value_) {
    out.push_back({file_, value});
  }
  return out;
}

std::vector<JsonView> JsonView::list(std::string_view key) const {
  return contains(key) && !(*this)[key].is_null() ? (*this)[key].list() : std::vector<JsonView>();
}

std::vector<std::pair<std::string, JsonView>> JsonView::items() const {
  if (!value_->is_object()) {
    refuse("an object");
  }
  std::vector<std::pair<std::string, JsonView>> out;
  for (auto at = value_->begin(); at != value_->end(); ++at) {
    out.emplace_back(at.key(), JsonView(file_, *at));
  }
  return out;
}

namespace {

bool read_value(const JsonView::Value& value, bool& out) {
  out = value.is_boolean() && value.get<bool>();
  return value.is_boolean();
}
bool read_value(const JsonView::Value& value, double& out) {
  out = value.is_number() ? value.get<double>() : 0;
  return value.is_number();
}
bool read_value(const JsonView::Value& value, std::string& out) {
  out = value.is_string() ? value.get<std::string>() : std::string();
  return value.is_string();
}
template <class T>
requires std::is_integral_v<T>
bool read_value(const JsonView::Value& value, T& out) {
  const bool fits = value.is_number_unsigned()  ? std::in_range<T>(value.get<std::uint64_t>())
                    : value.is_number_integer() ? std::in_range<T>(value.get<std::int64_t>())
                                                : false;
  out = fits ? value.get<T>() : T{};
  return fits;
}
bool read_value(const JsonView::Value& value, std::pair<std::string, double>& out) {
  return value.is_array() && value.size() == 2 && read_value(value[0], out.first) && read_value(value[1], out.second);
}
template <class T>
bool read_value(const JsonView::Value& value, std::vector<T>& out) {
  return value.is_array() && std::all_of(value.begin(), value.end(), [&](const auto& entry) {
           T read{};
           const bool good = read_value(entry, read);
           out.push_back(std::move(read));
           return good;
         });
}

template <class T>
std::string expected_of(const T*) {
  return std::string(kExpected<T>);
}
template <class T>
std::string expected_of(const std::vector<T>*) {
  return fmt::format("a list, each entry {}", kExpected<T>);
}

}  // namespace

template <class T>
T JsonView::get() const {
  T out{};
  if (!read_value(*value_, out)) {
    refuse(expected_of(static_cast<const T*>(nullptr)));
  }
  return out;
}
template bool JsonView::get() const;
template int JsonView::get() const;
template std::int64_t JsonView::get() const;
template std::uint64_t JsonView::get() const;
template double JsonView::get() const;
template std::string JsonView::get() const;
template std::vector<std::int64_t> JsonView::get() const;
template std::vector<double> JsonView::get() const;
template std::vector<std::string> JsonView::get() const;
template std::vector<std::pair<std::string, double>> JsonView::get() const;

void JsonView::refuse(std::string_view expected) const {
  const auto way = way_to(file_->value, value_).value_or("");
  throw DataError(
      fmt::format("{}: {}{}{}, expected {}", file_->where, way, way.empty() ? "" : " = ", told(*value_), expected));
}

void JsonView::fail(const std::string& what) const {
  const auto way = way_to(file_->value, value_).value_or("");
  throw DataError(fmt::format("{}: {}{}{}", file_->where, way, way.empty() ? "" : ": ", what));
}

}  // namespace whence
