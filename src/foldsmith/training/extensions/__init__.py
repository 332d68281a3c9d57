"""Extensions of the manager, one subject each."""
