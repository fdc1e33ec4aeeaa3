#include <edgetl.hpp>
#include <sensor_msgs/msg/image.hpp>

// Answers to a frame whose encoding is rgb8.
const std::vector<etl_answer> &answer(edgetl::Model &model, const sensor_msgs::msg::Image &frame) {
  return model.run_rgb(frame.data.data(), static_cast<std::int32_t>(frame.width),
                       static_cast<std::int32_t>(frame.height), frame.step, 1);
}
