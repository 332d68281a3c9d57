"""Self-supervised methods, one file each.

A method is a module with

- ``backbone``: the module from photos to features that is kept, student's or teacher's;
- ``dim``: width of the features that ``std`` is measured on;
- ``forward(views)``: from a batch's views to a dict of scalar tensors with the keys ``loss``
  and ``std`` (:func:`~foldsmith.ssl.shared.feature_std`); others are logged as well;
- ``after_update(progress)``, if something has to follow an optimizer step: all that it changes
  is in the module's state, so that a resumed training equals one that never stopped.
"""
