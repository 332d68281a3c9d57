from foldsmith.config.lazy_types import LazyTypes
from foldsmith.targets.task import Task
from foldsmith.targets.tasks import TYPES


def test_each_task_is_registered_by_its_name():
    found = LazyTypes(TYPES)
    assert all(issubclass(task, Task) for task in found.values())
    assert {name: task.name for name, task in found.items()} == {name: name for name in TYPES}
