#include "whence/core/text.h"

#include "whence/data/detail/keys.h"
#include "whence/data/detail/texts.h"
#include "whence/data/format.h"

namespace whence {
namespace fs = std::filesystem;
namespace {

struct TextFileKeys {
  std::string file;
  detail::TextKeys texts;
  template <class Self, class Field>
  static void fields(Self& self, Field&& field) {
    field("file", self.file, detail::kRequiredPath, "plain text, cut into blocks of `length` tokens");
    detail::TextKeys::fields(self.texts, field);
  }
};

class TextFormat : public DataFormat {
 public:
  std::vector<OptionInfo> keys() const override { return detail::describe_keys<TextFileKeys>(); }

  SourceExamples read(const nlohmann::json& table, const fs::path& folder, TargetKind wanted) const override {
    const auto path = folder / detail::read_keys<TextFileKeys>(table, "text").file;
    if (!are_tokens(wanted)) {
      throw InvalidArgument("text: plain text has no labels: use the loss next-token or masked-token");
    }
    SourceExamples source;
    source.files = {path};
    source.inputs_from = source.targets_from = path.string();
    source.records = {{"text"}, {{read_utf8(path)}}, {1}, true};
    return source;
  }
};

}  // namespace

WHENCE_FORMAT(text, TextFormat)

}  // namespace whence
